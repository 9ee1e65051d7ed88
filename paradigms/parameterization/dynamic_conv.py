"""The filter of dynamic depthwise convolution (arXiv:2106.04263, homogeneous)."""

from jaxtyping import Float
from torch import Tensor

from paradigms.parameterization.generated_filter import BottleneckFilter


class DynamicConv(BottleneckFilter):
    """Logits W ReLU(BN(U x̄)) of the mean x̄ over the map, U to a quarter of the channels: every pixel of an image alike.

    With as many heads as channels it is a depthwise convolution whose weights each image makes. To train, batch norm
    needs more than one image.

    Shape:
        (batch, height, width, dim) to (batch, 1, 1, heads, taps).
    """

    is_global = True

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch 1 1 heads taps"]:
        """Through the bottleneck, the mean alone."""
        return super().forward(x.mean(dim=(1, 2), keepdim=True))
