"""The protocol of a parameterization."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from paradigms.config import AttentionConfig
from paradigms.functional import Geometry, Scores


@runtime_checkable
class Parameterization(Protocol):
    """How logits are made; a module.

    Attributes:
        scores: of which kind they are: see `paradigms.functional.Scores`.
        is_global: whether they depend on the whole map.
    """

    scores: ClassVar[str]
    is_global: ClassVar[bool]

    @classmethod
    def from_config(
        cls, config: AttentionConfig, dim: int, num_heads: int, *, geometry: Geometry, qkv_bias: bool
    ) -> "Parameterization":
        """Read the fields of this level."""
        ...

    def __call__(self, x: Float[Tensor, "batch height width dim"]) -> Scores:
        """Make the logits, or what they are made of."""
        ...

    def project_zero_key(self) -> Float[Tensor, "heads head_dim"] | None:
        """The key of a pixel whose input is zero; None where that is zero or no key exists."""
        ...

    def position_tables(self) -> Mapping[str, nn.Module]:
        """The tables by offset that exist, by name; each has a `weight`."""
        ...

    def constant_parameters(self) -> frozenset[str]:
        """Parameters that add the same number to all of a query's logits, if every counted tap carries a key."""
        ...
