"""Sizes and thresholds of detectors; the defaults are those of mmdetection 2.x, the framework of arXiv:2112.12786."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class BoxStage:
    """One stage of boxes: which regions are objects, and how their boxes are refined.

    Attributes:
        iou: the smallest overlap of a region with an object that it is trained to find.
        lowest_iou: an object whose best overlap is at least this claims that region; None: no object claims any.
        deviations: scale of the differences in x, y, log width and log height that the stage predicts.
        weight: of the stage's losses.
    """

    iou: float = 0.5
    lowest_iou: float | None = None
    deviations: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DetectorSizes:
    """Everything about a detector but its backbone and its classes.

    Attributes:
        pyramid_channels: channels of every map of the pyramid.
        anchor_scale: side of the square anchor in steps of its map.
        anchor_ratios: height over width of the anchors.
        anchor_iou: an anchor with at least this overlap with an object is trained as an object.
        anchor_background_iou: an anchor with a smaller overlap than this is trained as background.
        anchor_lowest_iou: an object whose best overlap is at least this claims its best anchors.
        anchor_border: by how many pixels an anchor that is trained may leave the image; None: by any number.
        anchor_samples: anchors of an image that are trained in a step.
        anchor_positives: the largest fraction of objects among them.
        anchor_beta: where the smooth L1 loss of anchors turns into L1; 0 is L1.
        train_candidates: anchors with the highest scores of each map that become proposals in training, at most.
        train_proposals: proposals of an image in training, at most, after non-maximum suppression.
        test_candidates: the same in evaluation.
        test_proposals: the same in evaluation.
        proposal_nms: the largest overlap of two proposals of one map.
        finest_side: regions with sides below twice this (geometric mean) are read from the finest map.
        box_side: rows and columns of the map that is read from a region for its box.
        box_convolutions: 3x3 convolutions of a box head, with batch norm.
        box_layers: fully connected layers of a box head behind them.
        box_width: their outputs.
        box_loss: `l1` compares differences in units of the stage's deviations, `giou` decoded boxes (arXiv:1902.09630).
        box_loss_weight: of the loss of boxes, relative to that of classes.
        region_samples: regions of an image that are trained in a step.
        region_positives: the largest fraction of objects among them.
        stages: the stages of boxes.
        mask_side: rows and columns of a predicted mask; even, since the last layer doubles the map.
        mask_convolutions: 3x3 convolutions of a mask head.
        mask_channels: their channels.
        lowest_score: detections have a higher score than this.
        detection_nms: the largest overlap of two detections of one class.
        max_detections: detections of an image, at most.
    """

    pyramid_channels: int = 256
    anchor_scale: float = 8.0
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    anchor_iou: float = 0.7
    anchor_background_iou: float = 0.3
    anchor_lowest_iou: float = 0.3
    anchor_border: int | None = None
    anchor_samples: int = 256
    anchor_positives: float = 0.5
    anchor_beta: float = 0.0
    train_candidates: int = 2000
    train_proposals: int = 1000
    test_candidates: int = 1000
    test_proposals: int = 1000
    proposal_nms: float = 0.7
    finest_side: float = 56.0
    box_side: int = 7
    box_convolutions: int = 0
    box_layers: int = 2
    box_width: int = 1024
    box_loss: Literal["l1", "giou"] = "l1"
    box_loss_weight: float = 1.0
    region_samples: int = 512
    region_positives: float = 0.25
    stages: tuple[BoxStage, ...] = (BoxStage(lowest_iou=0.5),)
    mask_side: int = 28
    mask_convolutions: int = 4
    mask_channels: int = 256
    lowest_score: float = 0.05
    detection_nms: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        """Refuse sizes that no layer can have.

        Raises:
            ValueError: `mask_side` is odd, a box head has no layer, or there is no stage.
        """
        if self.mask_side % 2:
            raise ValueError(f"mask_side must be even, got {self.mask_side}")
        if self.box_layers < 1:
            raise ValueError(f"box_layers must be at least 1, got {self.box_layers}")
        if not self.stages:
            raise ValueError("stages must not be empty")


MASK_RCNN = DetectorSizes()
"""Mask R-CNN (arXiv:1703.06870) as configured for arXiv:2112.12786, Table 7."""

CASCADE_MASK_RCNN = DetectorSizes(
    anchor_border=0,
    anchor_beta=1 / 9,
    train_proposals=2000,
    box_convolutions=4,
    box_layers=1,
    box_loss="giou",
    box_loss_weight=10.0,
    stages=(
        BoxStage(iou=0.5, deviations=(0.1, 0.1, 0.2, 0.2), weight=1.0),
        BoxStage(iou=0.6, deviations=(0.05, 0.05, 0.1, 0.1), weight=0.5),
        BoxStage(iou=0.7, deviations=(0.033, 0.033, 0.067, 0.067), weight=0.25),
    ),
)
"""Cascade Mask R-CNN (arXiv:1906.09756) as configured for arXiv:2112.12786, Table 7."""
