"""Cascade Mask R-CNN (arXiv:1906.09756) with a pyramid, as in Table 7 of arXiv:2112.12786."""

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.batch import Objects
from harness.spec import CascadeMaskRCNNSpec
from harness.tasks.detection.detections import Detections
from harness.tasks.detection.detector import Detector, ImageSizes, Maps
from harness.tasks.detection.pyramid import PyramidBackbone
from harness.tasks.detection.regions import Regions

DEFAULTS = CascadeMaskRCNNSpec()


class CascadeMaskRCNN(Detector):
    """Stages of boxes and masks; each is trained on the regions that the one before it has refined.

    Args:
        pyramid: the backbone with its pyramid.
        num_classes: classes of objects, without background.
        sizes: everything else; the defaults are those of the paper.

    Raises:
        ValueError: `sizes` has other channels than the pyramid.
    """

    def __init__(self, pyramid: PyramidBackbone, num_classes: int, sizes: CascadeMaskRCNNSpec = DEFAULTS) -> None:
        super().__init__(pyramid, num_classes, sizes)

    def compute_losses(
        self, maps: Maps, proposals: Sequence[Regions], sizes: ImageSizes, objects: Sequence[Objects]
    ) -> dict[str, Tensor]:
        """The losses `class_1`, `box_1`, `mask_1`, `class_2`, ..., each times the weight of its stage."""
        losses: dict[str, Tensor] = {}
        for stage in range(len(self.box_heads)):
            samples = self.sample(stage, proposals, objects)
            stage_losses, logits, deltas = self.compute_stage_losses(stage, maps, samples, objects)
            losses |= {f"{name}_{stage + 1}": loss for name, loss in stage_losses.items()}
            labels = torch.cat([each.labels for each in samples])
            refined = self.get_box_head(stage).refine(logits, deltas, [each.regions for each in samples], sizes, labels)
            # the boxes of objects are added again in every stage, unrefined
            proposals = [boxes[~each.are_objects] for boxes, each in zip(refined, samples, strict=True)]
        return losses

    def find_objects(self, maps: Maps, proposals: Sequence[Regions], sizes: ImageSizes) -> list[Detections]:
        """The detections in each image: boxes of the last stage, scores from the mean of all stages' logits."""
        all_logits = []
        regions = proposals
        for stage in range(len(self.box_heads)):
            logits, deltas = self.predict_boxes(stage, maps, regions)
            all_logits.append(logits)
            if stage < len(self.box_heads) - 1:
                regions = self.get_box_head(stage).refine(logits, deltas, regions, sizes)
        return self.find_last(maps, torch.stack(all_logits).mean(dim=0), deltas, regions, sizes)
