"""The filter of involution (arXiv:2103.06255)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from paradigms.batch_norm import BatchNorm
from paradigms.config import AttentionConfig
from paradigms.functional import Geometry
from paradigms.parameterization.generated_filter import GeneratedFilter

REDUCTION = 4


class Involution(GeneratedFilter):
    """Logits of every pixel from its own channels: W ReLU(BN(U x_i)), U to a quarter of them, as released.

    Its groups are our heads, K numbers each; the released layers have a group every 16 channels.

    Args:
        dim: channels.
        num_heads: groups.
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
    ) -> "Involution":
        """Nothing to read."""
        return cls(dim, num_heads, num_taps=geometry.num_taps)

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width heads taps"]:
        """Through the bottleneck."""
        return self.to_logits(relu(self.norm(self.squeeze(x)))).unflatten(-1, (self.num_heads, -1))  # type: ignore[no-any-return]
