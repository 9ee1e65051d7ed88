"""The protocol of an aggregation."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from paradigms import functional
from paradigms.config import AttentionConfig


@runtime_checkable
class Aggregation(Protocol):
    """How weights meet values; a module.

    Attributes:
        is_global: whether its filters depend on the whole map.
    """

    is_global: ClassVar[bool]

    @classmethod
    def from_config(cls, config: AttentionConfig, dim: int, num_heads: int, num_offsets: int) -> "Aggregation":
        """Read the fields of this level."""
        ...

    @property
    def kind(self) -> str:
        """Which formula kernels may use."""
        ...

    def __call__(self, x: Float[Tensor, "batch height width dim"]) -> functional.Aggregation:
        """What multiplies and what is added to the weights."""
        ...

    def split_heads(self, v: Float[Tensor, "*map dim"], num_heads: int) -> Float[Tensor, "*map heads head_dim"]:
        """The channels of each head, as kernels take them."""
        ...

    def join_heads(
        self, v: Float[Tensor, "batch height width heads head_dim"]
    ) -> Float[Tensor, "batch height width dim"]:
        """The inverse of `split_heads`."""
        ...

    def position_tables(self) -> Mapping[str, nn.Module]:
        """The tables by offset that exist, by name; each has a `weight`."""
        ...
