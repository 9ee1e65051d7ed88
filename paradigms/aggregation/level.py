"""The protocol of an aggregation."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from paradigms import functional
from paradigms.config import AttentionConfig


@runtime_checkable
class Aggregation(Protocol):
    """How weights and values are combined: a module.

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
        """The kind of formula, by which kernels are selected."""
        ...

    def __call__(self, x: Float[Tensor, "batch height width dim"]) -> functional.Aggregation:
        """The filters that multiply the weights and that are added to them."""
        ...

    def split_heads(self, v: Float[Tensor, "*map dim"], num_heads: int) -> Float[Tensor, "*map heads head_dim"]:
        """Split channels into heads, in the layout of the kernels."""
        ...

    def join_heads(
        self, v: Float[Tensor, "batch height width heads head_dim"]
    ) -> Float[Tensor, "batch height width dim"]:
        """The inverse of `split_heads`."""
        ...

    def position_tables(self) -> Mapping[str, nn.Module]:
        """The tables over offsets that exist, by name; each has a `weight`."""
        ...
