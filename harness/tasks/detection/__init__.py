"""Detection: boxes and masks of the objects in an image, scored by average precision as COCO defines it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from harness.measure import Measure
from harness.spec import CascadeMaskRCNNSpec, DataSpec, DetectorSpec, FrameworkSpec, MaskRCNNSpec, TrainingSpec
from harness.tasks.task import OBJECTS, Evaluation, Task

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from timm.task import TrainingTask
    from torch import nn

    from harness.batch import LabelledBatch
    from harness.ranks import Ranks

BOX_AP = Measure("box_ap", "box AP", ceiling=100.0, relevant_gain=0.2)
"""Average precision of boxes, in percent: the mean over classes and over overlaps from 0.5 to 0.95 (COCO's AP)."""

MASK_AP = Measure("mask_ap", "mask AP", ceiling=100.0, relevant_gain=0.2)
"""The same of masks."""

BACKBONE = "pyramid.backbone."
"""Where the backbone lies in a detector."""


class Detection(Task):
    """Boxes and masks by Mask R-CNN or Cascade Mask R-CNN on the pyramid of a backbone."""

    measures = (
        BOX_AP,
        MASK_AP,
        *(
            Measure(f"{kind}_{name}", f"{kind} {title}", ceiling=100.0, relevant_gain=0.2)
            for kind in ("box", "mask")
            for name, title in (("ap50", "AP50"), ("ap75", "AP75"))
        ),
    )
    frameworks = (MaskRCNNSpec.family, CascadeMaskRCNNSpec.family)
    backbone_arguments: ClassVar[Mapping[str, Any]] = {"strict_img_size": False, "always_partition": True}
    truth = OBJECTS
    packages = ("faster_coco_eval",)
    extra = "dense"
    quality = "average precision"

    def count_outputs(self, _data: DataSpec) -> int:
        """None: the backbone has no classifier."""
        return 0

    def build_model(self, backbone: nn.Module, data: DataSpec, framework: FrameworkSpec | None) -> nn.Module:
        """The detector on the pyramid of the backbone."""
        from harness.tasks.detection.cascade_mask_rcnn import CascadeMaskRCNN
        from harness.tasks.detection.mask_rcnn import MaskRCNN
        from harness.tasks.detection.pyramid import PyramidBackbone

        assert isinstance(framework, DetectorSpec)
        pyramid = PyramidBackbone(backbone, framework.pyramid_channels)
        if isinstance(framework, CascadeMaskRCNNSpec):
            return CascadeMaskRCNN(pyramid, data.num_classes, framework)
        assert isinstance(framework, MaskRCNNSpec)
        return MaskRCNN(pyramid, data.num_classes, framework)

    def make_rule(self, rule: Callable[[nn.Module, str], None]) -> Callable[[nn.Module, str], None]:
        """The backbone's own rule, and for all else that of mmdetection."""
        return partial(_draw, rule)

    def build_objective(self, model: nn.Module, _training: TrainingSpec, device: torch.device) -> TrainingTask:
        """The sum of all losses of the detector."""
        from harness.tasks.detection.objective import DetectionTask

        return DetectionTask(model, device=device)

    def evaluate(self, model: nn.Module, batches: Iterable[LabelledBatch], ranks: Ranks) -> Evaluation:
        """Average precision of boxes and masks; truth and detections of each image are kept."""
        from harness.tasks.detection.evaluation import evaluate

        return evaluate(model, batches, ranks)

    def score(self, per_image: Mapping[str, NDArray[np.generic]]) -> Mapping[str, float]:
        """All scores, from the truth and the detections of each image."""
        from harness.tasks.detection.evaluation import score_arrays

        return score_arrays(per_image)


def _draw(rule: Callable[[nn.Module, str], None], module: nn.Module, path: str) -> None:
    from harness.tasks.detection.initialization import initialize_head

    if path.startswith(BACKBONE):
        rule(module, path.removeprefix(BACKBONE))
    else:
        initialize_head(module, path)


DETECTION = Detection()
