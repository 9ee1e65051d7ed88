"""Mask R-CNN (arXiv:1703.06870) with a pyramid, as in Table 7 of arXiv:2112.12786."""

from collections.abc import Sequence

from torch import Tensor

from harness.batch import Objects
from harness.spec import MaskRCNNSpec
from harness.tasks.detection.detections import Detections
from harness.tasks.detection.detector import Detector, ImageSizes, Maps
from harness.tasks.detection.pyramid import PyramidBackbone
from harness.tasks.detection.regions import Regions

DEFAULTS = MaskRCNNSpec()


class MaskRCNN(Detector):
    """One stage of boxes and masks on proposed regions.

    Example:
        >>> pyramid = PyramidBackbone(backbone)
        >>> model = MaskRCNN(pyramid, num_classes=80)
        >>> losses = model(images, sizes, objects)
        >>> detections = model.eval()(images, sizes)

    Args:
        pyramid: the backbone with its pyramid.
        num_classes: classes of objects, without background.
        sizes: everything else; the defaults are those of the paper.

    Raises:
        ValueError: `sizes` has other channels than the pyramid.
    """

    def __init__(self, pyramid: PyramidBackbone, num_classes: int, sizes: MaskRCNNSpec = DEFAULTS) -> None:
        super().__init__(pyramid, num_classes, sizes)

    def compute_losses(
        self, maps: Maps, proposals: Sequence[Regions], _sizes: ImageSizes, objects: Sequence[Objects]
    ) -> dict[str, Tensor]:
        """The losses `class`, `box` and `mask`."""
        losses, _, _ = self.compute_stage_losses(0, maps, self.sample(0, proposals, objects), objects)
        return losses

    def find_objects(self, maps: Maps, proposals: Sequence[Regions], sizes: ImageSizes) -> list[Detections]:
        """The detections in each image."""
        return self.find_last(maps, *self.predict_boxes(0, maps, proposals), proposals, sizes)
