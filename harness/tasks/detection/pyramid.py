"""A backbone with a feature pyramid (arXiv:1612.03144): from images to maps of every scale with equal channels."""

from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool


class PyramidBackbone(nn.Module):
    """The maps of all stages of a backbone, each with a layer norm of its own, and a pyramid on top of them.

    Images may have any size. They are padded with zeros at right and bottom to whole patches; windows that leave a map
    are padded by the backbone.

    Args:
        backbone: one of timm's models with `forward_intermediates`, built for any image size. A Swin Transformer needs
            `strict_img_size=False`, and `always_partition=True` so that its windows do not depend on `img_size`. Its
            final norm and its classifier are removed, since no loss uses them.
        channels: of every map of the pyramid.

    Attributes:
        strides: pixels from one position of a map to the next, finest map first.

    Shape:
        (batch, channels, height, width) to one map (batch, channels, rows, columns) per stage, finest first, and one
        with every second position of the last.

    Raises:
        ValueError: the backbone accepts images of one size only.
    """

    def __init__(self, backbone: nn.Module, channels: int = 256) -> None:
        super().__init__()
        timm = cast("Any", backbone)  # timm has no type for what its models have in common
        if timm.patch_embed.strict_img_size:
            raise ValueError(f"the backbone takes images of {timm.patch_embed.img_size} only: strict_img_size=False")
        timm.prune_intermediate_layers(len(timm.feature_info), prune_norm=True)
        widths = [info["num_chs"] for info in timm.feature_info]
        strides = [info["reduction"] for info in timm.feature_info]
        self.backbone = backbone
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.fpn = FeaturePyramidNetwork(widths, channels, extra_blocks=LastLevelMaxPool())
        self.channels = channels
        self.strides: tuple[int, ...] = (*strides, 2 * strides[-1])

    def forward(self, images: Float[Tensor, "batch colors height width"]) -> list[Float[Tensor, "batch channels _ _"]]:
        """The maps of the pyramid, finest first."""
        timm = cast("Any", self.backbone)
        patch_rows, patch_columns = timm.patch_embed.patch_size
        padding = 0, -images.shape[3] % patch_columns, 0, -images.shape[2] % patch_rows
        maps = timm.forward_intermediates(functional.pad(images, padding), intermediates_only=True)
        normalized = {
            str(stage): norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            for stage, (norm, x) in enumerate(zip(self.norms, maps, strict=True))
        }
        return list(self.fpn(normalized).values())
