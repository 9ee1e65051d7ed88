"""What a cell's id depends on."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from harness.cell import Cell
from harness.plan import make_plan
from harness.reading import load_spec
from harness.spec import (
    DataSpec,
    DeitSpec,
    ExperimentSpec,
    LimitsSpec,
    OperatorSpec,
    RowSpec,
    SwinSpec,
    TokenLabelsSpec,
    TrainingSpec,
    VoloSpec,
)
from harness.tasks import TASKS
from paradigms.config import CORE, TERMS
from paradigms.facts import FIELDS

PlanCell = Callable[..., Cell]
VaryRecipe = Callable[..., ExperimentSpec]


TABLE1_SMOKE = {
    "Swin-T": "6b71d1db65fc",
    "Net1": "aee0bd13ec0a",
    "Net2": "f98c8cd2f9d5",
    "Net3": "fb586132e148",
    "Net4": "ce45d75d9770",
    "Net5": "a5b46487cf94",
    "Net6": "c25314e05816",
    "Net7": "e0f89f6a4861",
    "Linear classifier": "bd7cad9d6101",
    "One hidden layer": "a94fd7bb85aa",
}


TABLE1_LAPTOP = {
    "Swin-T": "435498b6bb75",
    "Net1": "b4d9efd1b610",
    "Net2": "b66b7598ed0f",
    "Net3": "c419a2dccb40",
    "Net4": "bd7ab345ebe2",
    "Net5": "9545ac45a899",
    "Net6": "e7c3e689b15b",
    "Net7": "7ed552b0c155",
    "Linear classifier": "c667fa980b5e",
    "One hidden layer": "47eeb2793679",
}


def test_levels_name_operators_backbone_and_data(spec: ExperimentSpec, plan_cell: PlanCell) -> None:
    cell = plan_cell(spec, {"preset": "net1", "stages": {2: {"preset": "dwconv"}}})
    operators = {"query_key", "position_bias", "softmax", "identity", "local_window", "sliding_window", "weighted_sum"}
    assert cell.levels() == operators | {"swin", "fashion_mnist", "classification"}


def test_every_row_of_table1_has_its_own_id() -> None:
    for recipe in ("smoke", "laptop", "overnight", "imagenet"):
        rows = make_plan(load_spec(Path("experiments/table1.yaml"), recipe=recipe)).rows
        ids = [row.cell.id for row in rows if not row.is_placebo]
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("recipe", "ids"), [("smoke", TABLE1_SMOKE), ("laptop", TABLE1_LAPTOP)], ids=["smoke", "laptop"]
)
def test_the_ids_of_table1_are_frozen(recipe: str, ids: dict[str, str]) -> None:
    rows = make_plan(load_spec(Path("experiments/table1.yaml"), recipe=recipe)).rows
    assert {row.name: row.cell.id for row in rows if not row.is_placebo} == ids


@pytest.mark.parametrize(
    ("row", "same"),
    [
        pytest.param({"heads": "1x"}, {"heads": (1, 2, 4)}, id="heads"),
        pytest.param({"heads": "C"}, {"heads": (12, 24, 48)}, id="heads C"),
        pytest.param({"parameterization": TERMS}, {"parameterization": TERMS[::-1]}, id="term order"),
        pytest.param({"preset": "net7"}, {"parameterization": TERMS}, id="preset"),
        pytest.param(
            {"preset": "net7_n"}, {"parameterization": TERMS, "neighborhood": "sliding_window"}, id="sliding preset"
        ),
        pytest.param({}, {"normalization": "softmax", "aggregation": "weighted_sum", "dilation": 1}, id="defaults"),
        pytest.param({}, {"border": "project", "backend": "auto"}, id="default border"),
        pytest.param({}, {"window_size": (5, 5)}, id="the backbone's window"),
        pytest.param({}, {"kernel_size": 3, "dilation": 2}, id="fields without effect"),
        pytest.param({}, {"stages": {"last": {"preset": "swin"}}}, id="a stage that changes nothing"),
    ],
)
def test_what_resolves_to_the_same_cell_has_the_same_id(
    spec: ExperimentSpec, row: dict[str, Any], same: dict[str, Any], plan_cell: PlanCell
) -> None:
    assert plan_cell(spec, row).id == plan_cell(spec, same).id


def test_what_is_not_content_does_not_change_the_id(spec: ExperimentSpec) -> None:
    recipe = spec.recipe.model_copy(
        update={"name": "other", "title": "Other", "note": "!", "workers": 8, "limits": LimitsSpec(memory_limit_gb=1)}
    )
    other = spec.model_copy(
        update={"name": "other", "title": "Other", "recipe": recipe, "seeds": 9, "columns": ("params",)}
    )
    renamed = other.model_copy(update={"rows": {"B": RowSpec()}, "baseline": "B"})
    assert make_plan(renamed).rows[0].cell.id == make_plan(spec).rows[0].cell.id


def test_loading_workers_do_not_change_the_id(
    spec: ExperimentSpec, plan_cell: PlanCell, vary_recipe: VaryRecipe
) -> None:
    assert plan_cell(vary_recipe(spec, "data", loading_workers=4), {}).id == plan_cell(spec, {}).id


def test_a_default_spelled_out_does_not_change_the_id(
    spec: ExperimentSpec, plan_cell: PlanCell, vary_recipe: VaryRecipe
) -> None:
    spelled = spec
    for part in ("data", "swin", "training", "augmentation"):
        model = {
            "data": DataSpec,
            "swin": SwinSpec,
            "training": TrainingSpec,
            "augmentation": type(spec.recipe.training.augmentation),
        }[part]
        defaults = {
            name: field.default
            for name, field in model.model_fields.items()
            if not field.is_required() and name not in ("window_size", "augmentation")
        }
        spelled = vary_recipe(spelled, part, **defaults)
    assert plan_cell(spelled, {}).id == plan_cell(spec, {}).id


OPERATOR_CHANGES: dict[str, Any] = {
    "parameterization": ("query_key",),
    "normalization": "identity",
    "neighborhood": "sliding_window",
    "window_size": 3,
    "shift_size": 1,
    "border": "mask",
    "projections": "none",
    "backend": "reference",
    "heads": 1,
}


LEVEL_CHANGES: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"neighborhood": "sliding_window"}, {"kernel_size": 3, "dilation": 3}),
    ({"neighborhood": "sliding_chunk"}, {"chunk_size": 2, "exact": True}),
    ({"preset": "elsa"}, {"group_width": 8, "hadamard_size": 3, "initialization": "released"}),
    (
        {"aggregation": "ghost_head"},
        {"ghost_lambda": 1.0, "ghost_gamma": 0.5, "ghost_heads": "2x", "ghost_map": "interleaved"},
    ),
    ({"aggregation": "ghost_head", "ghost_lambda": 1.0}, {"ghost_start": "ones", "ghost_rate": 2.0}),
    ({"preset": "ddf"}, {"se_ratio": 0.5, "combine": "add"}),
)
"""What a row states, and the fields that its level alone reads."""


RECIPE_CHANGES: dict[str, dict[str, Any]] = {
    "data": {
        "name": "image_folder",
        "task": "regression",  # of a plug-in
        "num_classes": 5,
        "channels": 3,
        "image_size": 56,
        "train_images": 64,
        "resample_train": True,
        "val_images": 0,
        "test_images": 64,
        "crop_pct": 0.9,
        "interpolation": "bilinear",
        "unreadable_share": 0.001,
        "source": "torch/cifar10",
        "train_split": "training",
        "test_split": "test",
    },
    "swin": {
        "patch_size": 4,
        "embed_dim": 24,
        "depths": (1, 1, 1),
        "num_heads": (2, 2, 2),
        "window_size": 7,
        "mlp_ratio": 2.0,
        "qkv_bias": False,
        "drop_path_rate": 0.1,
        "weight_init": "jax",
    },
    "volo": {
        "patch_size": 4,
        "stem_hidden_dim": 8,
        "layers": (1, 1, 1),
        "embed_dims": (24, 24, 24),
        "num_heads": (1, 2, 2),
        "mlp_ratio": 2.0,
        "qkv_bias": True,
        "drop_path_rate": 0.1,
        "weight_init": "jax",
        "use_aux_head": True,
    },
    "deit": {
        "patch_size": 7,
        "embed_dim": 24,
        "depth": 3,
        "num_heads": (1,),
        "mlp_ratio": 2.0,
        "qkv_bias": False,
        "drop_path_rate": 0.1,
        "weight_init": "jax",
    },
    "training": {
        "opt": "sgd",
        "lr": 2e-3,
        "lr_base_size": 16,
        "batch_size": 32,
        "weight_decay": 0.0,
        "position_decay": True,
        "epochs": 3,
        "warmup_epochs": 0.5,
        "cooldown_epochs": 1,
        "warmup_lr": 1e-6,
        "min_lr": 1e-5,
        "schedule_unit": "epoch",
        "clip_grad": 5.0,
        "smoothing": 0.1,
        "ema_decay": 0.9,
        "precision": "bfloat16",
    },
    "augmentation": {
        "hflip": 0.5,
        "shift": 2,
        "reprob": 0.25,
        "erasing": "after_mixing",
        "interpolation": "random",
        "scale": (0.08, 1.0),
        "auto_augment": "rand-m9",
        "color_jitter": 0.4,
        "mixup": 0.8,
        "cutmix": 1.0,
    },
}


@pytest.mark.parametrize("field", OPERATOR_CHANGES)
def test_every_field_of_the_operator_changes_the_id(spec: ExperimentSpec, field: str, plan_cell: PlanCell) -> None:
    assert plan_cell(spec, {field: OPERATOR_CHANGES[field]}).id != plan_cell(spec, {}).id


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [(row, *change) for row, changes in LEVEL_CHANGES for change in changes.items()],
)
def test_every_field_of_a_level_changes_the_id_where_it_is_read(
    spec: ExperimentSpec, row: dict[str, Any], field: str, value: object, plan_cell: PlanCell
) -> None:
    assert plan_cell(spec, {**row, field: value}).id != plan_cell(spec, row).id
    assert plan_cell(spec, {field: value}).id == plan_cell(spec, {}).id


@pytest.mark.parametrize(
    ("part", "field"), [(part, field) for part, fields in RECIPE_CHANGES.items() for field in fields]
)
def test_every_field_of_the_recipe_changes_the_id(
    spec: ExperimentSpec,
    part: str,
    field: str,
    plan_cell: PlanCell,
    vary_recipe: VaryRecipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(TASKS, "regression", TASKS["classification"])
    changed = vary_recipe(spec, part, **{field: RECIPE_CHANGES[part][field]})
    row = {"backbone": part} if part in ("volo", "deit") else {}
    assert plan_cell(changed, row).id != plan_cell(spec, row).id


def test_no_field_is_left_out_of_the_laws_above(spec: ExperimentSpec) -> None:
    of_levels = {field for _, changes in LEVEL_CHANGES for field in changes}
    operator = {*OPERATOR_CHANGES, *of_levels, "aggregation", "preset"}
    assert operator == set(OperatorSpec.model_fields)
    assert {*CORE, *FIELDS} <= operator
    of_rows = {"backbone", "sizes", "under", "stages", "also_changes"} | {
        "framework",
        "init_from",
        "image_size",
        "match",
        "placebo",
    }  # the last five in test_frameworks, test_initial, test_matching and test_placebo
    assert of_rows == set(RowSpec.model_fields) - set(OperatorSpec.model_fields)
    assert spec.recipe.backbones.swin is not None
    parts: dict[str, tuple[BaseModel, set[str]]] = {
        "data": (spec.recipe.data, {"loading_workers"}),
        "swin": (spec.recipe.backbones.swin, {"initialization"}),  # of operators: see LEVEL_CHANGES
        "volo": (VoloSpec(layers=(1, 1), embed_dims=(8, 16), num_heads=(1, 2)), {"initialization"}),
        "deit": (DeitSpec(embed_dim=8, num_heads=(1,)), {"initialization"}),
        "training": (spec.recipe.training, {"augmentation", "token_labels"}),
        "augmentation": (spec.recipe.training.augmentation, set()),
    }
    for part, (model, other) in parts.items():
        assert set(RECIPE_CHANGES[part]) | other == set(type(model).model_fields), part


@pytest.mark.parametrize("field", TokenLabelsSpec.model_fields)
def test_every_field_of_token_labels_changes_the_id(spec: ExperimentSpec, field: str, plan_cell: PlanCell) -> None:
    labels = TokenLabelsSpec(grid=7)
    changed = {"grid": 14, "weight": 0.4, "mix_token": 0.5}
    before, after = (
        replace(plan_cell(spec, {}), training=spec.recipe.training.model_copy(update={"token_labels": value})).id
        for value in (labels, labels.model_copy(update={field: changed[field]}))
    )
    assert before != after


def test_what_an_older_version_did_not_write_has_its_default(spec: ExperimentSpec, plan_cell: PlanCell) -> None:
    cell = plan_cell(spec, {"preset": "net7_n"})
    content = cell.to_dict()
    del content["init_from"], content["data"]["task"], content["training"]["schedule_unit"]
    for stage in content["attention"]:
        del stage["dilation"]
    assert Cell.from_dict({**content, "cell_id": cell.id, "row": "A"}) == cell


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "swim"}, "unknown backbone 'swim'; did you mean 'swin'?"),
        ({"attention": [{"normalization": "sharp"}]}, "unknown normalization 'sharp'"),
        ({"attention": [{"temperature": 2.0}]}, "unknown field 'temperature'"),
        ({"training": {"lr": 0, "batch_size": 1, "epochs": 1}}, "training.lr: must be greater than 0, got 0"),
    ],
)
def test_a_cell_that_is_not_known_here_says_why(
    spec: ExperimentSpec, plan_cell: PlanCell, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Cell.from_dict({**plan_cell(spec, {}).to_dict(), **changes})


def test_fields_of_levels_that_a_cell_does_not_have_are_not_written(spec: ExperimentSpec, plan_cell: PlanCell) -> None:
    """A run beside a plug-in can be read without it."""
    stages = plan_cell(spec, {}).to_dict()["attention"]
    assert {"window_size", "shift_size"} <= set(stages[0])
    assert not {"kernel_size", "ghost_lambda"} & set(stages[0])


def test_float16_keeps_the_id_that_it_had_as_amp(
    spec: ExperimentSpec, plan_cell: PlanCell, vary_recipe: VaryRecipe
) -> None:
    cell = plan_cell(vary_recipe(spec, "training", precision="float16"), {})
    assert cell.to_identity()["training"] == {"lr": 1e-3, "batch_size": 16, "epochs": 2, "amp": True}
    content = cell.to_dict()
    older = {name: value for name, value in content["training"].items() if name != "precision"}
    assert Cell.from_dict({**content, "training": {**older, "amp": True}}) == cell
    assert Cell.from_dict({**content, "training": {**older, "amp": False}}) == plan_cell(spec, {})
