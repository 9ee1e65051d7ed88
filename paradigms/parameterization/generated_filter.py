"""The common part of parameterizations without keys, which generate one number per tap directly."""

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from paradigms.batch_norm import BatchNorm
from paradigms.config import AttentionConfig
from paradigms.functional import Geometry
from paradigms.parameterization.terms import PositionTable

REDUCTION = 4


class GeneratedFilter(nn.Module):
    """Base class of parameterizations that return logits (batch, height, width, heads, taps).

    Attributes:
        is_global: whether the logits depend on the whole map.
    """

    scores: ClassVar[str] = "logits"
    is_global: ClassVar[bool] = False

    def project_zero_key(self) -> None:
        """Return None: there are no keys."""

    def position_tables(self) -> Mapping[str, PositionTable]:
        """None."""
        return {}

    def constant_parameters(self) -> frozenset[str]:
        """None: no parameter adds the same number to all of a query's logits."""
        return frozenset()


class BottleneckFilter(GeneratedFilter):
    """Logits W ReLU(BN(U x)) of vectors x; U reduces the channels to a quarter.

    Args:
        dim: channels.
        num_heads: heads.
        num_taps: K.

    Shape:
        (batch, height, width, dim) to (batch, height, width, heads, taps).
    """

    def __init__(self, dim: int, num_heads: int, *, num_taps: int) -> None:
        super().__init__()
        narrow = max(1, dim // REDUCTION)
        self.num_heads = num_heads
        self.squeeze = nn.Linear(dim, narrow, bias=False)
        self.norm = BatchNorm(narrow)
        self.to_logits = nn.Linear(narrow, num_heads * num_taps)

    @classmethod
    def from_config(
        cls,
        config: AttentionConfig,  # noqa: ARG003 - no field of its own
        dim: int,
        num_heads: int,
        *,
        geometry: Geometry,
        qkv_bias: bool,  # noqa: ARG003 - it has no such projection
    ) -> "BottleneckFilter":
        """This level has no fields."""
        return cls(dim, num_heads, num_taps=geometry.num_taps)

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width heads taps"]:
        """Generate filters by the two layers."""
        return self.to_logits(relu(self.norm(self.squeeze(x)))).unflatten(-1, (self.num_heads, -1))  # type: ignore[no-any-return]
