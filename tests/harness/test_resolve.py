"""How a row becomes a cell, and which rows are refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cell import Cell
from harness.errors import SpecError
from harness.plan import make_plan
from harness.reading import load_spec
from harness.spec import (
    BackbonesSpec,
    ExperimentSpec,
    FactorsSpec,
    SwinSpec,
    TokenLabelsSpec,
    VoloSpec,
)
from paradigms.config import AttentionConfig
from paradigms.presets import PRESETS

PlanCell = Callable[..., Cell]
VaryRecipe = Callable[..., ExperimentSpec]


def test_a_row_replaces_fields_of_the_cell(spec: ExperimentSpec, plan_cell: PlanCell) -> None:
    cell = plan_cell(spec, {"normalization": "identity"}, cell={"parameterization": ("query_key",), "heads": 2})
    assert {config.parameterization for config in cell.attention} == {("query_key",)}
    assert {config.normalization for config in cell.attention} == {"identity"}
    assert cell.num_heads == (2, 2, 2)


def test_a_neighborhood_too_large_to_be_described_is_refused(
    spec: ExperimentSpec, plan_cell: PlanCell, vary_recipe: VaryRecipe
) -> None:
    large = vary_recipe(vary_recipe(spec, "swin", patch_size=1), "data", image_size=512)
    with pytest.raises(SpecError, match="sliding_window of 255x255 on a map of 512x512 has 17,045,913,600 pairs"):
        plan_cell(large, {"neighborhood": "sliding_window", "kernel_size": 255})


def test_the_window_is_the_backbones_unless_a_row_states_it(spec: ExperimentSpec, plan_cell: PlanCell) -> None:
    assert {config.window_size for config in plan_cell(spec, {"preset": "net7"}).attention} == {5}
    assert {config.window_size for config in plan_cell(spec, {"preset": "net7", "window_size": 3}).attention} == {3}


def test_a_preset_replaces_all_operator_fields_but_not_heads(spec: ExperimentSpec, plan_cell: PlanCell) -> None:
    inherited = {"normalization": "identity", "neighborhood": "sliding_window", "kernel_size": 3, "heads": "2x"}
    cell = plan_cell(spec, {"preset": "net6"}, cell=inherited)
    assert cell.attention == (replace(PRESETS["net6"].config, window_size=5),) * 3
    assert cell.num_heads == (2, 4, 8)


def test_what_stands_beside_a_preset_wins_over_it(spec: ExperimentSpec, plan_cell: PlanCell) -> None:
    cell = plan_cell(spec, {"preset": "net6", "normalization": "filter_norm"})
    assert {config.normalization for config in cell.attention} == {"filter_norm"}


def test_stages_replace_fields_and_the_more_specific_wins(spec: ExperimentSpec, plan_cell: PlanCell) -> None:
    stages = {
        2: {"normalization": "identity"},
        "last": {"heads": 1},
        "not_last": {"neighborhood": "sliding_window"},
        "all": {"normalization": "filter_norm", "heads": 2},
    }
    cell = plan_cell(spec, {"stages": stages})
    assert [config.normalization for config in cell.attention] == ["filter_norm", "identity", "filter_norm"]
    assert [config.neighborhood for config in cell.attention] == ["sliding_window", "sliding_window", "local_window"]
    assert cell.num_heads == (2, 2, 1)


def test_a_preset_in_a_stage_replaces_what_the_row_says_there(spec: ExperimentSpec, plan_cell: PlanCell) -> None:
    cell = plan_cell(spec, {"normalization": "identity", "stages": {"last": {"preset": "swin"}}})
    assert [config.normalization for config in cell.attention] == ["identity", "identity", "softmax"]


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (1, (1, 1, 1)),
        ("1x", (1, 2, 4)),
        ("2x", (2, 4, 8)),
        ("C", (12, 24, 48)),
        ((3, 6, 12), (3, 6, 12)),
        (None, (1, 2, 4)),
    ],
)
def test_heads_are_resolved_per_stage(
    spec: ExperimentSpec, heads: Any, expected: tuple[int, ...], plan_cell: PlanCell
) -> None:
    assert plan_cell(spec, {} if heads is None else {"heads": heads}).num_heads == expected


@pytest.mark.parametrize("backbone", ["volo", "deit"])
@pytest.mark.parametrize("row", [{}, {"backend": "reference"}], ids=["nothing", "backend"])
def test_a_backbone_keeps_its_attention_where_no_operator_is_stated(
    spec: ExperimentSpec, backbone: str, row: dict[str, Any], plan_cell: PlanCell
) -> None:
    cell = plan_cell(spec, {"backbone": backbone, **row})
    assert set(cell.attention) == {None}
    assert cell.id == plan_cell(spec, {"backbone": backbone}).id
    assert cell.factors()["parameterization"] == cell.factors()["neighborhood"] == ""
    assert cell.levels() == {backbone, "fashion_mnist", "classification"}


def test_an_operator_of_a_volo_stands_in_its_outlookers(spec: ExperimentSpec, plan_cell: PlanCell) -> None:
    stated = plan_cell(spec, {"backbone": "volo", "preset": "swin"})
    assert stated.attention == (PRESETS["swin"].config, None, None)
    assert plan_cell(spec, {"backbone": "volo", "stages": {1: {"preset": "swin"}}}).id == stated.id
    assert plan_cell(spec, {"backbone": "volo"}, cell={"preset": "swin"}).id == stated.id
    assert stated.factors()["parameterization"] == "query_key + position_bias"


def test_an_operator_of_a_deit_starts_from_its_global_attention(
    spec: ExperimentSpec, plan_cell: PlanCell, vary_recipe: VaryRecipe
) -> None:
    (config,) = plan_cell(spec, {"backbone": "deit", "normalization": "filter_norm"}).attention
    expected = AttentionConfig(parameterization=("query_key",), normalization="filter_norm", window_size=7)
    assert config == expected
    wider = vary_recipe(vary_recipe(spec, "deit", patch_size=2), "data", image_size=32)
    assert plan_cell(wider, {"backbone": "deit", "preset": "net7"}).attention == (
        replace(PRESETS["net7"].config, window_size=16),
    )
    assert plan_cell(spec, {"backbone": "deit", "preset": "swin"}).attention == (PRESETS["swin"].config,)


def test_a_size_of_another_name_is_another_cell_of_the_same_family(spec: ExperimentSpec, plan_cell: PlanCell) -> None:
    small, large = (plan_cell(spec, {"backbone": name}) for name in ("volo", "volo_d2"))
    assert small.backbone == large.backbone == "volo"
    assert small.id != large.id


@pytest.mark.parametrize(
    ("row", "heads"),
    [
        ({}, (2, 4, 6)),
        ({"heads": "2x"}, (4, 4, 6)),
        ({"heads": "C"}, (12, 4, 6)),
        ({"heads": 3}, (3, 4, 6)),
        ({"heads": (6, 4, 6)}, (6, 4, 6)),
        ({"stages": {1: {"heads": 1}}}, (1, 4, 6)),
    ],
)
def test_heads_of_stages_that_keep_their_attention_stay(
    spec: ExperimentSpec, row: dict[str, Any], heads: tuple[int, ...], plan_cell: PlanCell
) -> None:
    assert plan_cell(spec, {"backbone": "volo", **row}).num_heads == heads


def test_the_heads_of_timms_own_attention_may_be_stated(spec: ExperimentSpec, plan_cell: PlanCell) -> None:
    cell = plan_cell(spec, {"backbone": "deit", "heads": "2x"})
    assert (cell.attention, cell.num_heads) == ((None,), (6,))


@pytest.mark.parametrize("selector", [2, 3, "last", "not_last", "all"], ids=str)
def test_stages_that_keep_their_attention_cannot_be_named(
    spec: ExperimentSpec, selector: Any, plan_cell: PlanCell
) -> None:
    fixed = {2: "2", 3: "3", "last": "3", "not_last": "2", "all": "2, 3"}[selector]
    message = (
        f"rows.A.stages.{selector}: the attention of stage {fixed} of a volo cannot be replaced; stages that can: 1"
    )
    with pytest.raises(SpecError) as caught:
        plan_cell(spec, {"backbone": "volo", "stages": {selector: {"preset": "net7"}}})
    assert str(caught.value) == message


def test_a_list_of_heads_cannot_change_stages_that_keep_their_attention(
    spec: ExperimentSpec, plan_cell: PlanCell
) -> None:
    with pytest.raises(SpecError, match=r"stage 2 keeps its 4 heads, got \[2, 8, 6\]"):
        plan_cell(spec, {"backbone": "volo", "heads": (2, 8, 6)})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param(
            {"heads": 5},
            "rows.A: heads must divide the width, got 5 heads and width 12 in stage 1",
            id="heads",
        ),
        pytest.param({"heads": (1, 2)}, "rows.A: heads needs one number per stage (3), got [1, 2]", id="list"),
        pytest.param({"kernel_size": 4}, "rows.A: kernel_size must be odd, got 4", id="even kernel"),
        pytest.param({"stages": {4: {}}}, "rows.A.stages.4: the backbone has stages 1 to 3", id="stage"),
        pytest.param({"border": "shift"}, "rows.A: unknown border of local_window 'shift'", id="border"),
        pytest.param({"shift_size": 5}, "rows.A: shift_size must be in [0, window_size)", id="shift"),
        pytest.param({"parameterization": ()}, "rows.A: parameterization needs at least one term", id="no term"),
    ],
)
def test_an_impossible_combination_names_the_row(
    spec: ExperimentSpec, row: dict[str, Any], message: str, plan_cell: PlanCell
) -> None:
    with pytest.raises(SpecError) as caught:
        plan_cell(spec, row)
    assert str(caught.value).startswith(message)


def test_an_impossible_recipe_names_the_row(spec: ExperimentSpec, vary_recipe: VaryRecipe) -> None:
    without = spec.recipe.model_copy(update={"backbones": BackbonesSpec()})
    with pytest.raises(SpecError, match=r"rows\.A: recipe 'tiny' has no sizes for backbone 'swin'"):
        make_plan(spec.model_copy(update={"recipe": without}))
    with pytest.raises(SpecError, match=r"rows\.A: recipe 'tiny': patch_size must divide image_size, got 3 and 28"):
        make_plan(vary_recipe(spec, "swin", patch_size=3))


def test_an_impossible_combination_of_factors_names_it(spec: ExperimentSpec) -> None:
    factors = FactorsSpec(parameterization=(("query_key",), ("hadamard_conv",)), normalization=("softmax",))
    with pytest.raises(SpecError, match=r"^factors: hadamard_conv, softmax: hadamard_conv needs sliding_window"):
        make_plan(spec.model_copy(update={"factors": factors}))


def test_sizes_of_a_row_replace_the_cells_and_the_recipes(
    spec: ExperimentSpec, plan_cell: PlanCell, vary_recipe: VaryRecipe
) -> None:
    cell = {"sizes": {"tiny": {"mlp_ratio": 2.0, "depths": (1, 1, 1)}, "other": {"mlp_ratio": 9.0}}}
    sizes = plan_cell(spec, {"sizes": {"tiny": {"mlp_ratio": 3.5}}}, cell=cell).sizes
    assert isinstance(sizes, SwinSpec)
    assert (sizes.mlp_ratio, sizes.depths, sizes.embed_dim) == (3.5, (1, 1, 1), 12)
    assert sizes == vary_recipe(spec, "swin", mlp_ratio=3.5, depths=(1, 1, 1)).recipe.backbones.swin


def test_what_a_row_states_under_a_recipe_holds_there_alone(spec: ExperimentSpec, plan_cell: PlanCell) -> None:
    row: dict[str, Any] = {"preset": "net7", "window_size": 5}
    under = {"tiny": {"window_size": 3}, "other": {"normalization": "identity"}}
    assert plan_cell(spec, {**row, "under": under}).id == plan_cell(spec, {**row, "window_size": 3}).id
    assert plan_cell(spec, {**row, "under": {"other": {"heads": 1}}}).id == plan_cell(spec, row).id


def test_sizes_under_other_recipes_and_at_their_value_do_not_change_the_id(
    spec: ExperimentSpec, plan_cell: PlanCell
) -> None:
    same = {"sizes": {"tiny": {"mlp_ratio": 4.0, "embed_dim": 12}, "other": {"embed_dim": 24}}}
    assert plan_cell(spec, same).id == plan_cell(spec, {}).id


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        pytest.param(
            {"mlp_ration": 3}, "rows.A.sizes.tiny.mlp_ration: unknown size 'mlp_ration'; did you mean", id="name"
        ),
        pytest.param({"mlp_ratio": 0}, "rows.A.sizes.tiny.mlp_ratio: must be greater than 0, got 0", id="value"),
        pytest.param(
            {"depths": (1, 1)}, "rows.A.sizes.tiny: depths and num_heads need one entry per stage", id="together"
        ),
        pytest.param({"patch_size": 3}, "rows.A: recipe 'tiny': patch_size must divide image_size, got 3", id="patch"),
    ],
)
def test_impossible_sizes_name_their_place(
    spec: ExperimentSpec, sizes: dict[str, Any], message: str, plan_cell: PlanCell
) -> None:
    with pytest.raises(SpecError) as caught:
        plan_cell(spec, {"sizes": {"tiny": sizes}})
    assert str(caught.value).startswith(message)


def test_an_impossible_combination_in_a_file_is_told_with_its_line() -> None:
    with pytest.raises(
        SpecError, match=r"^experiments/table1\.yaml:\d+: rows\.Net1: heads must divide the width, got 3"
    ):
        make_plan(load_spec(Path("experiments/table1.yaml"), recipe="smoke", overrides=["rows.Net1.heads=3"]))


def _train_volo(spec: ExperimentSpec, *, use_aux_head: bool = True, **training: Any) -> ExperimentSpec:
    """A plan in which VOLO alone is trained otherwise, on maps of 7x7 tokens."""
    volo = VoloSpec(
        patch_size=2, layers=(2, 1, 1), embed_dims=(12, 24, 24), num_heads=(2, 4, 6), use_aux_head=use_aux_head
    )
    backbones = spec.recipe.backbones.model_copy(update={"volo": volo})
    own = spec.recipe.training.model_copy(update=training)
    recipe = spec.recipe.model_copy(update={"backbones": backbones, "training_of": {"volo": own}})
    return spec.model_copy(update={"recipe": recipe})


def test_a_backbone_that_is_trained_otherwise_moves_no_other_cell(spec: ExperimentSpec, plan_cell: PlanCell) -> None:
    changed = _train_volo(spec, lr=5e-3)
    assert plan_cell(changed, {}).id == plan_cell(spec, {}).id
    assert plan_cell(changed, {"backbone": "volo_d2"}).id == plan_cell(spec, {"backbone": "volo_d2"}).id
    assert plan_cell(changed, {"backbone": "volo"}).training.lr == 5e-3
    assert plan_cell(changed, {}, cell={"backbone": "volo"}).training.lr == 5e-3


@pytest.mark.parametrize(
    ("use_aux_head", "grid", "message"),
    [
        (False, 7, "token_labels.grid is 7, but backbone 'volo' has no head over its tokens (use_aux_head)"),
        (True, 14, "token_labels.grid is 14, but backbone 'volo' has 7 tokens a side"),
    ],
    ids=["no head", "other tokens"],
)
def test_token_labels_need_a_head_over_as_many_tokens(
    spec: ExperimentSpec, use_aux_head: bool, grid: int, message: str, plan_cell: PlanCell
) -> None:
    labelled = _train_volo(spec, use_aux_head=use_aux_head, token_labels=TokenLabelsSpec(grid=grid))
    with pytest.raises(SpecError) as caught:
        plan_cell(labelled, {"backbone": "volo"})
    assert str(caught.value) == f"rows.A: recipe 'tiny': {message}"
    assert plan_cell(labelled, {}).training.token_labels is None


def test_as_many_token_labels_as_tokens_are_planned(spec: ExperimentSpec, plan_cell: PlanCell) -> None:
    labels = TokenLabelsSpec(grid=7)
    assert plan_cell(_train_volo(spec, token_labels=labels), {"backbone": "volo"}).training.token_labels == labels
