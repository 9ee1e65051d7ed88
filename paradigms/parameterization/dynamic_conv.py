"""The filter of dynamic depthwise convolution (arXiv:2106.04263, homogeneous)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from paradigms.batch_norm import BatchNorm
from paradigms.config import AttentionConfig
from paradigms.functional import Geometry
from paradigms.parameterization.generated_filter import GeneratedFilter

REDUCTION = 4


class DynamicConv(GeneratedFilter):
    """Logits W ReLU(BN(U x̄)) of the mean x̄ over the map, U to a quarter of the channels: every pixel of an image alike.

    With as many heads as channels it is a depthwise convolution whose weights each image makes. To train, batch norm
    needs more than one image.

    Args:
        dim: channels.
        num_heads: heads.
        num_taps: K.

    Shape:
        (batch, height, width, dim) to (batch, 1, 1, heads, taps).
    """

    is_global = True

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
    ) -> "DynamicConv":
        """Nothing to read."""
        return cls(dim, num_heads, num_taps=geometry.num_taps)

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch 1 1 heads taps"]:
        """Through the bottleneck."""
        hidden = relu(self.norm(self.squeeze(x.mean(dim=(1, 2), keepdim=True))))
        return self.to_logits(hidden).unflatten(-1, (self.num_heads, -1))  # type: ignore[no-any-return]
