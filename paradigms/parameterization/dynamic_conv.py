"""The filter of dynamic depthwise convolution (arXiv:2106.04263, homogeneous)."""

from jaxtyping import Float
from torch import Tensor

from paradigms.parameterization.generated_filter import BottleneckFilter


class DynamicConv(BottleneckFilter):
    """Logits W ReLU(BN(U x̄)) of the mean x̄ over the map, the same for every pixel; U reduces the channels to a quarter.

    With as many heads as channels, it is a depthwise convolution whose weights are generated from each image. In
    training, batch norm needs more than one image.

    Shape:
        (batch, height, width, dim) to (batch, 1, 1, heads, taps).
    """

    is_global = True

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch 1 1 heads taps"]:
        """Generate the filter of each image from the mean over its map."""
        return super().forward(x.mean(dim=(1, 2), keepdim=True))
