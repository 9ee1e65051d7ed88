"""Frameworks: the models that detection and segmentation put on a backbone, with their sizes and thresholds.

The defaults are those of mmdetection 2.x, which arXiv:2112.12786 uses.
"""

from types import NoneType
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from harness.spec.field import Channels, Probability, Spec
from paradigms.facts import unknown_name


class FrameworkSpec(Spec):
    """Everything about a framework but its backbone and its classes."""

    family: ClassVar[str]
    """The name of the framework, a field of `FrameworksSpec`."""

    label: ClassVar[str]
    """The name in texts."""


class BoxStageSpec(Spec):
    """One stage of boxes: which regions are objects, and how their boxes are refined.

    Attributes:
        iou: the smallest overlap of a region with an object that it is trained to find.
        lowest_iou: an object whose best overlap is at least this claims that region; None: no object claims any.
        deviations: scale of the differences in x, y, log width and log height that the stage predicts.
        weight: of the stage's losses.
    """

    iou: Probability = 0.5
    lowest_iou: Probability | None = None
    deviations: tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat] = (0.1, 0.1, 0.2, 0.2)
    weight: PositiveFloat = 1.0


class DetectorSpec(FrameworkSpec):
    """A detector that proposes regions on a feature pyramid and finds boxes and masks in them.

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

    pyramid_channels: Channels = 256
    anchor_scale: PositiveFloat = 8.0
    anchor_ratios: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    anchor_iou: Probability = 0.7
    anchor_background_iou: Probability = 0.3
    anchor_lowest_iou: Probability = 0.3
    anchor_border: NonNegativeInt | None = None
    anchor_samples: PositiveInt = 256
    anchor_positives: Probability = 0.5
    anchor_beta: NonNegativeFloat = 0.0
    train_candidates: PositiveInt = 2000
    train_proposals: PositiveInt = 1000
    test_candidates: PositiveInt = 1000
    test_proposals: PositiveInt = 1000
    proposal_nms: Probability = 0.7
    finest_side: PositiveFloat = 56.0
    box_side: PositiveInt = 7
    box_convolutions: NonNegativeInt = 0
    box_layers: PositiveInt = 2
    box_width: Channels = 1024
    box_loss: Literal["l1", "giou"] = "l1"
    box_loss_weight: PositiveFloat = 1.0
    region_samples: PositiveInt = 512
    region_positives: Probability = 0.25
    stages: Annotated[tuple[BoxStageSpec, ...], Field(min_length=1)] = (BoxStageSpec(lowest_iou=0.5),)
    mask_side: Annotated[int, Field(gt=0, multiple_of=2)] = 28
    mask_convolutions: NonNegativeInt = 4
    mask_channels: Channels = 256
    lowest_score: Probability = 0.05
    detection_nms: Probability = 0.5
    max_detections: PositiveInt = 100

    @model_validator(mode="after")
    def _check_anchors(self) -> Self:
        if self.anchor_background_iou > self.anchor_iou:
            raise ValueError(
                f"anchor_background_iou must not exceed anchor_iou, got {self.anchor_background_iou} and "
                f"{self.anchor_iou}"
            )
        return self


class MaskRCNNSpec(DetectorSpec):
    """Mask R-CNN (arXiv:1703.06870) with a feature pyramid, as configured for arXiv:2112.12786, Table 7."""

    family = "mask_rcnn"
    label = "Mask R-CNN"

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        if len(self.stages) != 1:
            raise ValueError(f"Mask R-CNN has one stage, got {len(self.stages)}; cascade_mask_rcnn has several")
        return self


class CascadeMaskRCNNSpec(DetectorSpec):
    """Cascade Mask R-CNN (arXiv:1906.09756), as configured for arXiv:2112.12786, Table 7."""

    family = "cascade_mask_rcnn"
    label = "Cascade Mask R-CNN"

    anchor_border: NonNegativeInt | None = 0
    anchor_beta: NonNegativeFloat = 1 / 9
    train_proposals: PositiveInt = 2000
    box_convolutions: NonNegativeInt = 4
    box_layers: PositiveInt = 1
    box_loss: Literal["l1", "giou"] = "giou"
    box_loss_weight: PositiveFloat = 10.0
    stages: Annotated[tuple[BoxStageSpec, ...], Field(min_length=1)] = (
        BoxStageSpec(iou=0.5, deviations=(0.1, 0.1, 0.2, 0.2), weight=1.0),
        BoxStageSpec(iou=0.6, deviations=(0.05, 0.05, 0.1, 0.1), weight=0.5),
        BoxStageSpec(iou=0.7, deviations=(0.033, 0.033, 0.067, 0.067), weight=0.25),
    )


class FrameworksSpec(Spec):
    """The sizes of each framework under a recipe; None: the recipe has no sizes for it."""

    mask_rcnn: MaskRCNNSpec | None = None
    cascade_mask_rcnn: CascadeMaskRCNNSpec | None = None


def find_framework(name: str) -> type[FrameworkSpec]:
    """The model of the sizes of a framework.

    Raises:
        ValueError: there is no such framework; the message gives the nearest name.
    """
    members = (member for field in FrameworksSpec.model_fields.values() for member in get_args(field.annotation))
    known: dict[str, type[FrameworkSpec]] = {member.family: member for member in members if member is not NoneType}
    if name not in known:
        raise ValueError(unknown_name("framework", name, tuple(known)))
    return known[name]


def _check_framework(name: str) -> str:
    find_framework(name)
    return name


Framework = Annotated[str, AfterValidator(_check_framework)]
