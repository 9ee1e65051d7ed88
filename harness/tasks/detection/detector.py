"""What Mask R-CNN and Cascade Mask R-CNN have in common."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from harness.batch import Images, Objects
from harness.spec import DetectorSpec
from harness.tasks.detection.box_head import BoxHead, Deltas, Logits
from harness.tasks.detection.detections import Detections
from harness.tasks.detection.initialization import initialize_head
from harness.tasks.detection.mask_head import MaskHead, compute_mask_loss, keep_objects
from harness.tasks.detection.proposals import ProposalNetwork
from harness.tasks.detection.pyramid import PyramidBackbone
from harness.tasks.detection.regions import Regions, Samples, align_regions, sample_regions

Maps = Sequence[Float[Tensor, "batch channels _ _"]]
ImageSizes = Sequence[tuple[int, int]]

COUNTED_PROPOSALS = 1000
COUNTED_MASKS = 100
"""How many regions mmdetection counts the heads of boxes and of masks on."""


class Detector(nn.Module):
    """Proposes regions on a pyramid; a subclass trains heads of boxes and of masks on them, and applies them.

    Args:
        pyramid: the backbone with its pyramid.
        num_classes: classes of objects, without background.
        sizes: everything else; one head of boxes and one of masks for each of its stages.

    Raises:
        ValueError: the channels of the pyramid are not those of `sizes`.
    """

    def __init__(self, pyramid: PyramidBackbone, num_classes: int, sizes: DetectorSpec) -> None:
        super().__init__()
        if pyramid.channels != sizes.pyramid_channels:
            raise ValueError(f"pyramid_channels is {sizes.pyramid_channels}, but the pyramid has {pyramid.channels}")
        self.num_classes, self.sizes = num_classes, sizes
        self.pyramid = pyramid
        self.proposals = ProposalNetwork(pyramid.channels, pyramid.strides, sizes)
        self.box_heads = nn.ModuleList(BoxHead(pyramid.channels, num_classes, s, sizes) for s in sizes.stages)
        self.mask_heads = nn.ModuleList(MaskHead(pyramid.channels, num_classes, sizes) for _ in sizes.stages)
        for path, module in self.named_modules():
            if not path.startswith("pyramid.backbone"):
                initialize_head(module, path)

    def forward(
        self, images: Images, sizes: ImageSizes, objects: Sequence[Objects] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        """The losses by name in training mode, whose sum is to be minimized; else the detections in each image.

        Args:
            images: normalized, and padded to a common size at right and bottom.
            sizes: rows and columns of each image without its padding.
            objects: what is to be found in each image; only training needs it.

        Raises:
            ValueError: there is not one size for each image, or in training mode not one entry of objects.
        """
        if len(sizes) != len(images):
            raise ValueError(f"{len(images)} images need one size each, got {len(sizes)}")
        padded = ImageList(images, list(sizes))
        maps = self.pyramid(images)
        levels = {str(level): x for level, x in enumerate(maps)}
        if not self.training:
            proposals, _ = self.proposals(padded, levels)
            return self.find_objects(maps[:-1], proposals, sizes)
        if objects is None or len(objects) != len(images):
            raise ValueError(f"training needs the objects of each of the {len(images)} images")
        wanted = [keep_trainable(each) for each in objects]
        targets = [{"boxes": each.boxes, "size": size} for each, size in zip(wanted, sizes, strict=True)]
        proposals, losses = self.proposals(padded, levels, targets)
        return {
            "rpn_class": losses["loss_objectness"],
            "rpn_box": losses["loss_rpn_box_reg"],
            **self.compute_losses(maps[:-1], proposals, sizes, wanted),
        }

    def compute_losses(
        self, maps: Maps, proposals: Sequence[Regions], sizes: ImageSizes, objects: Sequence[Objects]
    ) -> dict[str, Tensor]:
        """The losses of the heads by name."""
        raise NotImplementedError

    def find_objects(self, maps: Maps, proposals: Sequence[Regions], sizes: ImageSizes) -> list[Detections]:
        """The detections in each image."""
        raise NotImplementedError

    def count_forward(self, images: Images) -> list[Tensor]:
        """Run what mmdetection counts the operations of: all but anchors, alignment, suppression and losses.

        The heads of boxes run on 1000 regions, those of masks on 100 of them, whatever `images` has. It works on the
        meta device.
        """
        maps = self.pyramid(images)
        logits, deltas = self.proposals.head(maps)
        regions = maps[0].new_zeros(COUNTED_PROPOSALS, self.pyramid.channels, self.sizes.box_side, self.sizes.box_side)
        found = [output for head in self.box_heads for output in head(regions)]
        half = self.sizes.mask_side // 2
        masks = maps[0].new_zeros(COUNTED_MASKS, self.pyramid.channels, half, half)
        return [*logits, *deltas, *found, *(head(masks) for head in self.mask_heads)]

    def get_box_head(self, stage: int) -> BoxHead:
        """The head of boxes of a stage, from 0."""
        return cast("BoxHead", self.box_heads[stage])

    def sample(self, stage: int, proposals: Sequence[Regions], objects: Sequence[Objects]) -> list[Samples]:
        """Choose the regions of each image that a stage is trained on."""
        return [
            sample_regions(regions, each, self.num_classes, self.sizes.stages[stage], self.sizes)
            for regions, each in zip(proposals, objects, strict=True)
        ]

    def predict_boxes(self, stage: int, maps: Maps, regions: Sequence[Regions]) -> tuple[Logits, Deltas]:
        """Apply the head of boxes of a stage to the regions of all images."""
        return self.get_box_head(stage)(self._align(maps, regions, self.sizes.box_side))  # type: ignore[no-any-return]

    def compute_stage_losses(
        self, stage: int, maps: Maps, samples: Sequence[Samples], objects: Sequence[Objects]
    ) -> tuple[dict[str, Tensor], Logits, Deltas]:
        """The losses of a stage by name, times its weight, and what its head of boxes predicts."""
        logits, deltas = self.predict_boxes(stage, maps, [each.regions for each in samples])
        class_loss, box_loss = self.get_box_head(stage).compute_losses(
            logits, deltas, samples, [each.boxes for each in objects]
        )
        found = [keep_objects(each) for each in samples]
        masks = self.predict_masks(stage, maps, [each.regions for each in found])
        weight = self.sizes.stages[stage].weight
        losses = {"class": class_loss, "box": box_loss, "mask": compute_mask_loss(masks, found, objects)}
        return {name: weight * loss for name, loss in losses.items()}, logits, deltas

    def predict_masks(
        self, stage: int, maps: Maps, regions: Sequence[Regions]
    ) -> Float[Tensor, "all_regions classes side side"]:
        """Apply the head of masks of a stage to the regions of all images; the results are logits."""
        return self.mask_heads[stage](self._align(maps, regions, self.sizes.mask_side // 2))  # type: ignore[no-any-return]

    def _align(self, maps: Maps, regions: Sequence[Regions], side: int) -> Tensor:
        strides = self.pyramid.strides[: len(maps)]
        return align_regions(maps, strides, regions, side=side, finest_side=self.sizes.finest_side)

    def find_last(
        self,
        maps: Maps,
        logits: Logits,
        deltas: Deltas,
        regions: Sequence[Regions],
        sizes: ImageSizes,
    ) -> list[Detections]:
        """Decode the boxes of the last stage, and add masks: the mean probability over the heads of masks."""
        lengths = [len(each) for each in regions]
        found = [
            self.get_box_head(-1).find_boxes(*image)
            for image in zip(logits.split(lengths), deltas.split(lengths), regions, sizes, strict=True)
        ]
        boxes = [each[0] for each in found]
        labels = torch.cat([each[2] for each in found])
        chosen = torch.arange(len(labels), device=labels.device), labels
        probabilities = [
            self.predict_masks(stage, maps, boxes)[chosen].sigmoid() for stage in range(len(self.mask_heads))
        ]
        masks = torch.stack(probabilities).mean(dim=0).split([len(each) for each in boxes])
        return [Detections(*each, mask) for each, mask in zip(found, masks, strict=True)]


def keep_trainable(objects: Objects) -> Objects:
    """The objects that are trained on: those that stand for one, and whose boxes are not empty."""
    left, top, right, bottom = objects.boxes.unbind(dim=1)
    kept = ~objects.crowd & (left < right) & (top < bottom)
    return Objects(objects.size, objects.boxes[kept], objects.labels[kept], objects.masks[kept], objects.crowd[kept])
