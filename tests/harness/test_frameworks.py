"""What a task puts on a backbone: part of a cell, with sizes under a recipe."""

import json
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from harness.build import build_model, describe_stages
from harness.cell import Cell
from harness.costs import measure_cost
from harness.errors import SpecError
from harness.plan import SkippedRow, make_plan
from harness.provenance import reached_modules
from harness.spec import (
    BackbonesSpec,
    CascadeMaskRCNNSpec,
    CellSpec,
    DataSpec,
    DeitSpec,
    DetectorSpec,
    ExperimentSpec,
    FrameworksSpec,
    MaskRCNNSpec,
    RowSpec,
    SwinSpec,
)
from harness.spec.framework import BoxStageSpec

SMALL: dict[str, Any] = {"pyramid_channels": 8, "box_width": 16, "mask_channels": 8, "box_convolutions": 1}

CHANGES: dict[str, Any] = {
    "pyramid_channels": 16,
    "anchor_scale": 4.0,
    "anchor_ratios": (1.0,),
    "anchor_iou": 0.6,
    "anchor_background_iou": 0.2,
    "anchor_lowest_iou": 0.2,
    "anchor_border": 4,
    "anchor_samples": 64,
    "anchor_positives": 0.25,
    "anchor_beta": 0.1,
    "train_candidates": 100,
    "train_proposals": 50,
    "test_candidates": 100,
    "test_proposals": 50,
    "proposal_nms": 0.6,
    "finest_side": 28.0,
    "box_side": 5,
    "box_convolutions": 2,
    "box_layers": 1,
    "box_width": 32,
    "box_loss": "giou",
    "box_loss_weight": 2.0,
    "region_samples": 64,
    "region_positives": 0.5,
    "stages": (BoxStageSpec(iou=0.6),),
    "mask_side": 14,
    "mask_convolutions": 2,
    "mask_channels": 16,
    "lowest_score": 0.1,
    "detection_nms": 0.6,
    "max_detections": 10,
}


@pytest.fixture
def detecting(spec: ExperimentSpec) -> ExperimentSpec:
    """One row with a small Mask R-CNN, under a recipe that has a DeiT too."""
    swin = SwinSpec(patch_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=7, weight_init="reset")
    data = DataSpec(
        name="fashion_scenes", task="detection", num_classes=10, channels=1, image_size=64,
        train_images=8, val_images=4, test_images=4,
    )  # fmt: skip
    recipe = spec.recipe.model_copy(
        update={
            "data": data,
            "backbones": BackbonesSpec(swin=swin, deit=DeitSpec(patch_size=4, embed_dim=8, num_heads=(1,))),
            "frameworks": FrameworksSpec(mask_rcnn=MaskRCNNSpec(**SMALL)),
        }
    )
    return spec.model_copy(update={"recipe": recipe, "rows": {"A": RowSpec(framework="mask_rcnn")}})


def plan_row(spec: ExperimentSpec, **row: Any) -> Cell:
    changed = spec.model_copy(update={"rows": {"A": RowSpec.model_validate(row)}})
    return make_plan(changed, is_derived=True).rows[0].cell


def with_sizes(spec: ExperimentSpec, **sizes: Any) -> ExperimentSpec:
    frameworks = FrameworksSpec(mask_rcnn=MaskRCNNSpec(**{**SMALL, **sizes}))
    return spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"frameworks": frameworks})})


def test_no_field_is_left_out_of_the_law_below() -> None:
    assert CHANGES.keys() == MaskRCNNSpec.model_fields.keys()


@pytest.mark.parametrize("field", CHANGES)
def test_every_size_changes_the_id(detecting: ExperimentSpec, field: str) -> None:
    changed = with_sizes(detecting, **{field: CHANGES[field]})
    assert plan_row(changed, framework="mask_rcnn").id != plan_row(detecting, framework="mask_rcnn").id


def test_a_cell_comes_back_from_its_dict(detecting: ExperimentSpec) -> None:
    cell = plan_row(detecting, framework="mask_rcnn")
    content = json.loads(json.dumps(cell.to_dict()))
    assert content["framework"]["name"] == "mask_rcnn"
    assert Cell.from_dict(content) == cell
    assert "mask_rcnn" in cell.levels()


def test_the_framework_of_the_cell_is_that_of_rows_which_state_none(detecting: ExperimentSpec) -> None:
    cell = detecting.cell.model_copy(update={"framework": "mask_rcnn"})
    inherited = plan_row(detecting.model_copy(update={"cell": cell}))
    assert inherited == plan_row(detecting, framework="mask_rcnn")


def test_a_row_whose_framework_has_no_sizes_is_skipped(detecting: ExperimentSpec) -> None:
    rows = {**detecting.rows, "B": RowSpec(framework="cascade_mask_rcnn")}
    plan = make_plan(detecting.model_copy(update={"rows": rows}))
    assert plan.skipped == (SkippedRow("B", "recipe 'tiny' has no sizes for framework 'cascade_mask_rcnn'"),)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "framework must be one of mask_rcnn, cascade_mask_rcnn for task 'detection', got none"),
        ({"framework": "mask_rcnn", "backbone": "deit"}, "needs maps of several scales, a DeiT has none"),
    ],
)
def test_what_a_task_cannot_use_is_an_error_in_its_row(
    detecting: ExperimentSpec, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        plan_row(detecting, **row)


@pytest.mark.parametrize("sizes", [MaskRCNNSpec(**SMALL), None], ids=["sizes", "no sizes"])
def test_classification_has_no_framework(spec: ExperimentSpec, sizes: MaskRCNNSpec | None) -> None:
    recipe = spec.recipe.model_copy(update={"frameworks": FrameworksSpec(mask_rcnn=sizes)})
    of_row = r"^rows\.A: framework must be none for task 'classification', got 'mask_rcnn'"
    with pytest.raises(SpecError, match=of_row):
        plan_row(spec.model_copy(update={"recipe": recipe}), framework="mask_rcnn")
    inherited = spec.model_copy(update={"recipe": recipe, "cell": CellSpec(framework="mask_rcnn")})
    with pytest.raises(SpecError, match=r"^cell\.framework: framework must be none"):
        plan_row(inherited)


def test_two_rows_draw_the_same_values_for_what_they_share(detecting: ExperimentSpec) -> None:
    own = build_model(plan_row(detecting, framework="mask_rcnn"), replicate=0).state_dict()
    other = build_model(plan_row(detecting, framework="mask_rcnn", preset="dwconv"), replicate=0).state_dict()
    again = build_model(plan_row(detecting, framework="mask_rcnn"), replicate=1).state_dict()
    shared = [name for name in own if name in other and own[name].shape == other[name].shape]
    assert any(name.startswith("box_heads.") for name in shared)
    assert all(torch.equal(own[name], other[name]) for name in shared)
    drawn = own["box_heads.0.classes.weight"]
    assert drawn.std().item() == pytest.approx(0.01, rel=0.2)
    assert not torch.equal(drawn, again["box_heads.0.classes.weight"])


def test_costs_and_stages_are_those_of_the_whole_model(detecting: ExperimentSpec) -> None:
    cell = plan_row(detecting, framework="mask_rcnn")
    costs = measure_cost(cell)
    model = build_model(cell, replicate=0)
    assert costs["params"] == sum(parameter.numel() for parameter in model.parameters())
    assert costs["macs"] > 0
    assert [stage.map_size for stage in describe_stages(cell)] == [(16, 16), (8, 8)]


def test_the_code_of_a_detector_is_part_of_its_digest_alone(detecting: ExperimentSpec, spec: ExperimentSpec) -> None:
    assert "harness.tasks.detection.mask_rcnn" in reached_modules(plan_row(detecting, framework="mask_rcnn"))
    assert not any("detection" in module for module in reached_modules(plan_row(spec)))


def test_mask_rcnn_has_one_stage() -> None:
    with pytest.raises(ValidationError, match="Mask R-CNN has one stage, got 3"):
        MaskRCNNSpec(stages=CascadeMaskRCNNSpec().stages)


@pytest.mark.parametrize("kind", [MaskRCNNSpec, CascadeMaskRCNNSpec])
@pytest.mark.parametrize(
    "changes", [{"mask_side": 7}, {"box_layers": 0}, {"stages": ()}, {"anchor_background_iou": 0.8}]
)
def test_impossible_sizes_are_refused(kind: type[DetectorSpec], changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changes))):
        kind(**changes)
