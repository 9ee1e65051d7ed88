"""Regions of images: which objects they belong to, which of them are trained, and what a pyramid shows of them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.ops import box_area, box_iou, roi_align

from harness.batch import Objects
from harness.spec import BoxStageSpec, DetectorSpec

BACKGROUND = -1
IGNORED = -2

Regions = Float[Tensor, "regions 4"]
"""Left, top, right and bottom in pixels."""


class Samples(NamedTuple):
    """Regions of one image that are trained in a step.

    Attributes:
        regions: where they are.
        objects: index of the object that each belongs to, or `BACKGROUND`.
        labels: its class; the number of classes for background.
        are_objects: whether a region is the box of an object itself.
    """

    regions: Regions
    objects: Int[Tensor, "regions"]
    labels: Int[Tensor, "regions"]
    are_objects: Bool[Tensor, "regions"]


def assign_objects(
    regions: Regions,
    boxes: Float[Tensor, "objects 4"],
    *,
    positive: float,
    negative: float,
    lowest: float | None = None,
) -> Int[Tensor, "regions"]:
    """The object of each region: its index, `BACKGROUND` or `IGNORED`.

    A region belongs to the object with the largest overlap, if it is at least `positive`. Below `negative` it is
    background, and between them it is ignored. Then every object whose largest overlap is at least `lowest` claims all
    regions with that overlap; of several objects the last one gets them, as in mmdetection 2.x.
    """
    if not len(boxes):
        return torch.full((len(regions),), BACKGROUND, device=regions.device)
    overlap: Tensor = box_iou(boxes, regions)
    largest, nearest = overlap.max(dim=0)
    assigned = nearest.masked_fill(largest < positive, IGNORED).masked_fill(largest < negative, BACKGROUND)
    if lowest is not None and len(regions):
        best = overlap.max(dim=1, keepdim=True).values
        index = torch.arange(len(boxes), device=boxes.device)[:, None]
        claims = torch.where((overlap == best) & (best >= lowest), index, BACKGROUND).max(dim=0).values
        assigned = torch.where(claims == BACKGROUND, assigned, claims)
    return assigned


def sample_regions(
    proposals: Regions, objects: Objects, num_classes: int, stage: BoxStageSpec, sizes: DetectorSpec
) -> Samples:
    """Choose the regions of one image that a stage is trained on, at random from proposals and boxes of objects."""
    regions = torch.cat([proposals, objects.boxes])
    are_objects = torch.arange(len(regions), device=regions.device) >= len(proposals)
    assigned = assign_objects(regions, objects.boxes, positive=stage.iou, negative=stage.iou, lowest=stage.lowest_iou)
    sampler = BalancedPositiveNegativeSampler(sizes.region_samples, sizes.region_positives)
    positives, negatives = sampler([assigned + 1])  # it takes 0 for background, and negative numbers for ignored
    chosen = (positives[0] | negatives[0]).bool()
    found = assigned[chosen]
    labels = torch.full_like(found, num_classes)
    labels[found != BACKGROUND] = objects.labels[found[found != BACKGROUND]]
    return Samples(regions[chosen], found, labels, are_objects[chosen])


def to_rois(regions: Sequence[Regions]) -> Float[Tensor, "all_regions 5"]:
    """The regions of all images, with the index of the image in front."""
    return torch.cat([torch.cat([r.new_full((len(r), 1), image), r], dim=1) for image, r in enumerate(regions)])


def align_regions(
    maps: Sequence[Float[Tensor, "batch channels _ _"]],
    strides: Sequence[int],
    regions: Sequence[Regions],
    *,
    side: int,
    finest_side: float,
) -> Float[Tensor, "all_regions channels side side"]:
    """Read a map of each region from the level of a pyramid that fits its size (arXiv:1612.03144, Eq. 1).

    RoIAlign (arXiv:1703.06870) has corrected coordinates (`aligned`) and as many points as the region has positions.
    """
    rois = to_rois(regions)
    relative = box_area(rois[:, 1:]).sqrt() / finest_side
    levels = (relative + 1e-6).log2().floor().clamp(0, len(maps) - 1)
    aligned = rois.new_zeros(len(rois), maps[0].shape[1], side, side)
    for level, (x, stride) in enumerate(zip(maps, strides, strict=True)):
        chosen = torch.where(levels == level)[0]
        aligned[chosen] = roi_align(x.float(), rois[chosen], side, 1 / stride, 0, aligned=True)
    return aligned
