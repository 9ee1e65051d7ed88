"""The protocol of a parameterization."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from paradigms.config import AttentionConfig
from paradigms.functional import Geometry, Scores


@runtime_checkable
class Parameterization(Protocol):
    """How logits are computed: a module.

    Attributes:
        scores: the kind of its result: see `paradigms.functional.Scores`.
        is_global: whether the logits depend on the whole map.
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
        """Compute the logits or their operands."""
        ...

    def project_zero_key(self) -> Float[Tensor, "heads head_dim"] | None:
        """The key of a pixel whose input is zero; None if it is zero or there are no keys."""
        ...

    def position_tables(self) -> Mapping[str, nn.Module]:
        """The tables over offsets that exist, by name; each has a `weight`."""
        ...

    def constant_parameters(self) -> frozenset[str]:
        """Parameters that add the same number to all logits of a query, if every counted tap has a key."""
        ...
