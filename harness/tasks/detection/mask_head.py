"""A head that predicts masks of regions (arXiv:1703.06870)."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from harness.batch import Objects
from harness.spec import DetectorSpec
from harness.tasks.detection.regions import Regions, Samples


class MaskHead(nn.Module):
    """A mask for each class of a region.

    Shape:
        (regions, channels, side / 2, side / 2) to logits (regions, classes, side, side).
    """

    def __init__(self, channels: int, num_classes: int, sizes: DetectorSpec) -> None:
        super().__init__()
        self.convolutions = nn.Sequential()
        for _ in range(sizes.mask_convolutions):
            self.convolutions.extend([nn.Conv2d(channels, sizes.mask_channels, 3, padding=1), nn.ReLU(inplace=True)])
            channels = sizes.mask_channels
        self.upsample = nn.ConvTranspose2d(channels, sizes.mask_channels, 2, stride=2)
        self.masks = nn.Conv2d(sizes.mask_channels, num_classes, 1)

    def forward(self, x: Float[Tensor, "regions channels _ _"]) -> Float[Tensor, "regions classes side side"]:
        """Logits of masks, in single precision."""
        x = self.upsample(self.convolutions(x)).relu()
        return self.masks(x).float()  # type: ignore[no-any-return]


def keep_objects(samples: Samples) -> Samples:
    """The sampled regions without background."""
    found = samples.objects >= 0
    return Samples(*(each[found] for each in samples))


def crop_masks(
    masks: Bool[Tensor, "objects rows columns"], regions: Regions, objects: Int[Tensor, "regions"], side: int
) -> Float[Tensor, "regions side side"]:
    """The part of each region's mask that lies in the region, scaled to `side`, and rounded to 0 or 1."""
    rois = torch.cat([objects[:, None].to(regions.dtype), regions], dim=1)
    cropped: Tensor = roi_align(masks[:, None].to(regions.dtype), rois, side, 1.0, 0, aligned=True)
    return (cropped[:, 0] >= 0.5).float()


def compute_mask_loss(
    logits: Float[Tensor, "regions classes side side"], samples: Sequence[Samples], objects: Sequence[Objects]
) -> Tensor:
    """Binary cross entropy of the masks of the regions' own classes; the samples have no background."""
    side = logits.shape[-1]
    labels = torch.cat([each.labels for each in samples])
    targets = torch.cat(
        [
            crop_masks(each.masks, found.regions, found.objects, side)
            for each, found in zip(objects, samples, strict=True)
            if len(found.regions)
        ]
        or [logits.new_zeros(0, side, side)]
    )
    own = logits[torch.arange(len(labels), device=labels.device), labels]
    loss = functional.binary_cross_entropy_with_logits(own, targets, reduction="sum")
    return loss / max(targets.numel(), 1)
