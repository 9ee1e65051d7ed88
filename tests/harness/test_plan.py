import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from harness.errors import SpecError
from harness.plan import FLOORS, Cell, SkippedRow, make_plan, select_rows
from harness.reading import load_spec
from harness.spec import (
    BackbonesSpec,
    CellSpec,
    DataSpec,
    DeitSpec,
    ExperimentSpec,
    FactorsSpec,
    LimitsSpec,
    OperatorSpec,
    RecipeSpec,
    RowSpec,
    SwinSpec,
    TokenLabelsSpec,
    TrainingSpec,
    VoloSpec,
)
from paradigms.config import CORE, TERMS, AttentionConfig
from paradigms.facts import FIELDS
from paradigms.presets import PRESETS

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


@pytest.fixture
def spec() -> ExperimentSpec:
    recipe = RecipeSpec(
        name="tiny",
        title="Tiny",
        data=DataSpec(name="fashion_mnist", num_classes=10, channels=1, image_size=28, val_images=200),
        backbones=BackbonesSpec(
            swin=SwinSpec(patch_size=2, embed_dim=12, depths=(2, 1, 1), num_heads=(1, 2, 4), window_size=5),
            volo=VoloSpec(patch_size=2, layers=(2, 1, 1), embed_dims=(12, 24, 24), num_heads=(2, 4, 6)),
            volo_d2=VoloSpec(patch_size=2, layers=(4, 1, 1), embed_dims=(12, 24, 24), num_heads=(2, 4, 6)),
            deit=DeitSpec(patch_size=4, embed_dim=12, depth=2, num_heads=(3,)),
        ),
        training=TrainingSpec(lr=1e-3, batch_size=16, epochs=2),
    )
    return ExperimentSpec(name="mine", title="Mine", recipe=recipe, baseline="A", rows={"A": RowSpec()}, seeds=2)


def plan_cell(spec: ExperimentSpec, row: dict[str, Any], *, cell: dict[str, Any] | None = None) -> Cell:
    """The cell of one row, written as in a file."""
    base = CellSpec.model_validate(cell or {})
    changed = spec.model_copy(update={"cell": base, "rows": {"A": RowSpec.model_validate(row)}})
    return make_plan(changed, is_derived=True).rows[0].cell


def vary_recipe(spec: ExperimentSpec, part: str, **changes: Any) -> ExperimentSpec:
    """The spec with fields of one part of its recipe changed."""
    recipe = spec.recipe
    if part == "swin":
        assert recipe.backbones.swin is not None
        swin = recipe.backbones.swin.model_copy(update=changes)
        return spec.model_copy(
            update={"recipe": recipe.model_copy(update={"backbones": BackbonesSpec(swin=swin)})},
        )
    if part in ("volo", "deit"):
        sizes = getattr(recipe.backbones, part).model_copy(update=changes)
        backbones = recipe.backbones.model_copy(update={part: sizes})
        return spec.model_copy(update={"recipe": recipe.model_copy(update={"backbones": backbones})})
    if part == "augmentation":
        augmentation = recipe.training.augmentation.model_copy(update=changes)
        return vary_recipe(spec, "training", augmentation=augmentation)
    changed: BaseModel = getattr(recipe, part).model_copy(update=changes)
    return spec.model_copy(update={"recipe": recipe.model_copy(update={part: changed})})


def test_the_plan_is_replicate_major(spec: ExperimentSpec) -> None:
    rows = {name: RowSpec(heads=heads) for name, heads in (("A", 1), ("B", 2), ("C", 4))}
    plan = make_plan(spec.model_copy(update={"rows": rows}))
    assert [(run.row.name, run.seed) for run in plan.runs] == [(row, seed) for seed in (0, 1) for row in "ABC"]


def test_some_rows_of_a_plan_are_chosen_by_names_that_may_have_commas(spec: ExperimentSpec) -> None:
    names = ("A", "A, wide", "B")
    rows = {name: RowSpec(heads=heads) for name, heads in zip(names, (1, 2, 4), strict=True)}
    plan = make_plan(spec.model_copy(update={"rows": rows}))
    for asked, chosen in (
        (["A, wide,B"], ["A, wide", "B"]),
        (["B,A"], ["A", "B"]),
        (["B", "A, wide"], ["A, wide", "B"]),
        ([], list(names)),
    ):
        selected = select_rows(plan, asked)
        assert [row.name for row in selected.rows] == chosen
        assert [(run.row.name, run.seed) for run in selected.runs] == [
            (name, seed) for seed in (0, 1) for name in chosen
        ]
    with pytest.raises(SpecError, match="unknown row 'C'"):
        select_rows(plan, ["A,C"])


def test_floors_come_after_the_rows(spec: ExperimentSpec) -> None:
    recipe = spec.recipe.model_copy(update={"floor_width": 16})
    plan = make_plan(spec.model_copy(update={"recipe": recipe}))
    assert [(row.name, row.is_floor) for row in plan.rows] == [("A", False), *((name, True) for name in FLOORS)]
    linear, mlp = (row.cell for row in plan.rows[1:])
    assert (linear.backbone, linear.attention, linear.num_heads) == ("linear", (), ())
    assert (mlp.backbone, mlp.to_canonical()["sizes"]) == ("mlp", {"width": 16})
    assert [run.seed for run in plan.runs] == [0, 0, 0, 1, 1, 1]


def test_a_floor_does_not_depend_on_the_backbones_sizes(spec: ExperimentSpec) -> None:
    recipe = spec.recipe.model_copy(update={"floor_width": 16})
    spec = spec.model_copy(update={"recipe": recipe})
    wider = vary_recipe(spec, "swin", embed_dim=24)
    assert [row.cell.id for row in make_plan(spec).rows[1:]] == [row.cell.id for row in make_plan(wider).rows[1:]]


def test_a_row_replaces_fields_of_the_cell(spec: ExperimentSpec) -> None:
    cell = plan_cell(spec, {"normalization": "identity"}, cell={"parameterization": ("query_key",), "heads": 2})
    assert {config.parameterization for config in cell.attention} == {("query_key",)}
    assert {config.normalization for config in cell.attention} == {"identity"}
    assert cell.num_heads == (2, 2, 2)


def test_a_neighborhood_too_large_to_be_described_is_refused(spec: ExperimentSpec) -> None:
    large = vary_recipe(vary_recipe(spec, "swin", patch_size=1), "data", image_size=512)
    with pytest.raises(SpecError, match="sliding_window of 255x255 on a map of 512x512 has 17,045,913,600 pairs"):
        plan_cell(large, {"neighborhood": "sliding_window", "kernel_size": 255})


def test_the_window_is_the_backbones_unless_a_row_states_it(spec: ExperimentSpec) -> None:
    assert {config.window_size for config in plan_cell(spec, {"preset": "net7"}).attention} == {5}
    assert {config.window_size for config in plan_cell(spec, {"preset": "net7", "window_size": 3}).attention} == {3}


def test_a_preset_replaces_all_operator_fields_but_not_heads(spec: ExperimentSpec) -> None:
    inherited = {"normalization": "identity", "neighborhood": "sliding_window", "kernel_size": 3, "heads": "2x"}
    cell = plan_cell(spec, {"preset": "net6"}, cell=inherited)
    assert cell.attention == (replace(PRESETS["net6"].config, window_size=5),) * 3
    assert cell.num_heads == (2, 4, 8)


def test_what_stands_beside_a_preset_wins_over_it(spec: ExperimentSpec) -> None:
    cell = plan_cell(spec, {"preset": "net6", "normalization": "filter_norm"})
    assert {config.normalization for config in cell.attention} == {"filter_norm"}


def test_stages_replace_fields_and_the_more_specific_wins(spec: ExperimentSpec) -> None:
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


def test_a_preset_in_a_stage_replaces_what_the_row_says_there(spec: ExperimentSpec) -> None:
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
def test_heads_are_resolved_per_stage(spec: ExperimentSpec, heads: Any, expected: tuple[int, ...]) -> None:
    assert plan_cell(spec, {} if heads is None else {"heads": heads}).num_heads == expected


@pytest.mark.parametrize("backbone", ["volo", "deit"])
@pytest.mark.parametrize("row", [{}, {"backend": "reference"}], ids=["nothing", "backend"])
def test_a_backbone_keeps_its_attention_where_no_operator_is_stated(
    spec: ExperimentSpec, backbone: str, row: dict[str, Any]
) -> None:
    cell = plan_cell(spec, {"backbone": backbone, **row})
    assert set(cell.attention) == {None}
    assert cell.id == plan_cell(spec, {"backbone": backbone}).id
    assert cell.factors()["parameterization"] == cell.factors()["neighborhood"] == ""
    assert cell.levels() == {backbone, "fashion_mnist", "classification"}


def test_an_operator_of_a_volo_stands_in_its_outlookers(spec: ExperimentSpec) -> None:
    stated = plan_cell(spec, {"backbone": "volo", "preset": "swin"})
    assert stated.attention == (PRESETS["swin"].config, None, None)
    assert plan_cell(spec, {"backbone": "volo", "stages": {1: {"preset": "swin"}}}).id == stated.id
    assert plan_cell(spec, {"backbone": "volo"}, cell={"preset": "swin"}).id == stated.id
    assert stated.factors()["parameterization"] == "query_key + position_bias"


def test_an_operator_of_a_deit_starts_from_its_global_attention(spec: ExperimentSpec) -> None:
    (config,) = plan_cell(spec, {"backbone": "deit", "normalization": "filter_norm"}).attention
    expected = AttentionConfig(parameterization=("query_key",), normalization="filter_norm", window_size=7)
    assert config == expected
    wider = vary_recipe(vary_recipe(spec, "deit", patch_size=2), "data", image_size=32)
    assert plan_cell(wider, {"backbone": "deit", "preset": "net7"}).attention == (
        replace(PRESETS["net7"].config, window_size=16),
    )
    assert plan_cell(spec, {"backbone": "deit", "preset": "swin"}).attention == (PRESETS["swin"].config,)


def test_a_size_of_another_name_is_another_cell_of_the_same_family(spec: ExperimentSpec) -> None:
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
    spec: ExperimentSpec, row: dict[str, Any], heads: tuple[int, ...]
) -> None:
    assert plan_cell(spec, {"backbone": "volo", **row}).num_heads == heads


def test_the_heads_of_timms_own_attention_may_be_stated(spec: ExperimentSpec) -> None:
    cell = plan_cell(spec, {"backbone": "deit", "heads": "2x"})
    assert (cell.attention, cell.num_heads) == ((None,), (6,))


@pytest.mark.parametrize("selector", [2, 3, "last", "not_last", "all"], ids=str)
def test_stages_that_keep_their_attention_cannot_be_named(spec: ExperimentSpec, selector: Any) -> None:
    fixed = {2: "2", 3: "3", "last": "3", "not_last": "2", "all": "2, 3"}[selector]
    message = (
        f"rows.A.stages.{selector}: the attention of stage {fixed} of a volo cannot be replaced; stages that can: 1"
    )
    with pytest.raises(SpecError) as caught:
        plan_cell(spec, {"backbone": "volo", "stages": {selector: {"preset": "net7"}}})
    assert str(caught.value) == message


def test_a_list_of_heads_cannot_change_stages_that_keep_their_attention(spec: ExperimentSpec) -> None:
    with pytest.raises(SpecError, match=r"stage 2 keeps its 4 heads, got \[2, 8, 6\]"):
        plan_cell(spec, {"backbone": "volo", "heads": (2, 8, 6)})


def test_levels_name_operators_backbone_and_data(spec: ExperimentSpec) -> None:
    cell = plan_cell(spec, {"preset": "net1", "stages": {2: {"preset": "dwconv"}}})
    operators = {"query_key", "position_bias", "softmax", "identity", "local_window", "sliding_window", "weighted_sum"}
    assert cell.levels() == operators | {"swin", "fashion_mnist", "classification"}


def test_a_planned_run_can_be_pickled(spec: ExperimentSpec) -> None:
    run = make_plan(spec).runs[0]
    assert pickle.loads(pickle.dumps(run)) == run


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
def test_an_impossible_combination_names_the_row(spec: ExperimentSpec, row: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        plan_cell(spec, row)
    assert str(caught.value).startswith(message)


def test_an_impossible_recipe_names_the_row(spec: ExperimentSpec) -> None:
    without = spec.recipe.model_copy(update={"backbones": BackbonesSpec()})
    with pytest.raises(SpecError, match=r"rows\.A: recipe 'tiny' has no sizes for backbone 'swin'"):
        make_plan(spec.model_copy(update={"recipe": without}))
    with pytest.raises(SpecError, match=r"rows\.A: recipe 'tiny': patch_size must divide image_size, got 3 and 28"):
        make_plan(vary_recipe(spec, "swin", patch_size=3))


def test_a_row_whose_backbone_the_recipe_lacks_is_skipped_with_its_reason(spec: ExperimentSpec) -> None:
    rows = {"A": RowSpec(), "B": RowSpec(backbone="volo_d5")}
    plan = make_plan(spec.model_copy(update={"rows": rows}))
    assert [row.name for row in plan.rows] == ["A"]
    assert {run.row.name for run in plan.runs} == {"A"}
    assert plan.skipped == (SkippedRow("B", "recipe 'tiny' has no sizes for backbone 'volo_d5'"),)


def test_an_impossible_combination_of_factors_names_it(spec: ExperimentSpec) -> None:
    factors = FactorsSpec(parameterization=(("query_key",), ("hadamard_conv",)), normalization=("softmax",))
    with pytest.raises(SpecError, match=r"^factors: hadamard_conv, softmax: hadamard_conv needs sliding_window"):
        make_plan(spec.model_copy(update={"factors": factors}))


def test_rows_of_factors_are_planned_like_stated_ones(spec: ExperimentSpec) -> None:
    factors = FactorsSpec(normalization=("filter_norm", "identity"))
    rows = {row.name: row.cell.id for row in make_plan(spec.model_copy(update={"factors": factors})).rows}
    assert rows == {
        "A": plan_cell(spec, {}).id,
        "filter_norm": plan_cell(spec, {"normalization": "filter_norm"}).id,
        "identity": plan_cell(spec, {"normalization": "identity"}).id,
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param(
            {"preset": "net7_n", "window_size": 4},
            "rows.B.window_size: has no effect: local_window alone reads it, the neighborhood is sliding_window",
            id="of another neighborhood",
        ),
        pytest.param({"ghost_lambda": 0.5}, "rows.B.ghost_lambda: has no effect: ghost_head alone", id="of a level"),
        pytest.param(
            {"aggregation": "ghost_head", "ghost_gamma": 0.0, "ghost_lambda": 1.0, "ghost_rate": 2.0},
            "rows.B.ghost_rate: has no effect: ghost_gamma is 0",
            id="of what is off",
        ),
        pytest.param(
            {"stages": {"last": OperatorSpec(kernel_size=5)}, "heads": 2},
            "rows.B.stages.last.kernel_size: has no effect: sliding_window alone",
            id="of a stage",
        ),
        pytest.param(
            {"under": {"tiny": OperatorSpec(dilation=2)}, "heads": 2},
            "rows.B.under.tiny.dilation: has no effect",
            id="under a recipe",
        ),
        pytest.param(
            {"normalization": "softmax"},
            "rows.B: is the same cell as row 'A' under recipe 'tiny': they differ in nothing that has an effect",
            id="the inherited value",
        ),
        pytest.param({"image_size": 28}, "rows.B: is the same cell as row 'A'", id="the recipe's size"),
    ],
)
def test_a_row_without_effect_is_refused_with_the_reason(
    spec: ExperimentSpec, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        make_plan(spec.model_copy(update={"rows": {"A": RowSpec(), "B": RowSpec.model_validate(row)}}))
    assert str(caught.value).startswith(message)


def test_a_field_that_one_stage_reads_has_an_effect(spec: ExperimentSpec) -> None:
    row = {"kernel_size": 5, "stages": {"not_last": OperatorSpec(neighborhood="sliding_window")}}
    plan = make_plan(spec.model_copy(update={"rows": {"A": RowSpec(), "B": RowSpec.model_validate(row)}}))
    assert [row.name for row in plan.rows] == ["A", "B"]


def test_rows_that_are_one_cell_under_this_recipe_alone_are_shown_once(spec: ExperimentSpec) -> None:
    rows = {"B": RowSpec(sizes={"laptop": {"mlp_ratio": 3.0}}), "A": RowSpec()}
    plan = make_plan(spec.model_copy(update={"rows": rows}))
    reason = "is the same cell as row 'A' under recipe 'tiny': they differ in nothing that has an effect"
    assert ([row.name for row in plan.rows], plan.skipped) == (["A"], (SkippedRow("B", reason),))


def test_rows_that_a_search_has_made_may_be_one_cell(spec: ExperimentSpec) -> None:
    plan = make_plan(spec.model_copy(update={"rows": {"A": RowSpec(), "B": RowSpec()}}), is_derived=True)
    assert [row.name for row in plan.rows] == ["A", "B"]


def test_sizes_of_a_row_replace_the_cells_and_the_recipes(spec: ExperimentSpec) -> None:
    cell = {"sizes": {"tiny": {"mlp_ratio": 2.0, "depths": (1, 1, 1)}, "other": {"mlp_ratio": 9.0}}}
    sizes = plan_cell(spec, {"sizes": {"tiny": {"mlp_ratio": 3.5}}}, cell=cell).sizes
    assert isinstance(sizes, SwinSpec)
    assert (sizes.mlp_ratio, sizes.depths, sizes.embed_dim) == (3.5, (1, 1, 1), 12)
    assert sizes == vary_recipe(spec, "swin", mlp_ratio=3.5, depths=(1, 1, 1)).recipe.backbones.swin


def test_what_a_row_states_under_a_recipe_holds_there_alone(spec: ExperimentSpec) -> None:
    row: dict[str, Any] = {"preset": "net7", "window_size": 5}
    under = {"tiny": {"window_size": 3}, "other": {"normalization": "identity"}}
    assert plan_cell(spec, {**row, "under": under}).id == plan_cell(spec, {**row, "window_size": 3}).id
    assert plan_cell(spec, {**row, "under": {"other": {"heads": 1}}}).id == plan_cell(spec, row).id


def test_sizes_under_other_recipes_and_at_their_value_do_not_change_the_id(spec: ExperimentSpec) -> None:
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
def test_impossible_sizes_name_their_place(spec: ExperimentSpec, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        plan_cell(spec, {"sizes": {"tiny": sizes}})
    assert str(caught.value).startswith(message)


def test_an_impossible_combination_in_a_file_is_told_with_its_line() -> None:
    with pytest.raises(
        SpecError, match=r"^experiments/table1\.yaml:\d+: rows\.Net1: heads must divide the width, got 3"
    ):
        make_plan(load_spec(Path("experiments/table1.yaml"), recipe="smoke", overrides=["rows.Net1.heads=3"]))


def test_a_row_cannot_have_a_floors_name(spec: ExperimentSpec) -> None:
    recipe = spec.recipe.model_copy(update={"floor_width": 16})
    with pytest.raises(SpecError, match="the name of a floor"):
        make_plan(spec.model_copy(update={"recipe": recipe, "rows": {FLOORS[0]: RowSpec()}}))


def test_every_row_of_table1_has_its_own_id() -> None:
    for recipe in ("smoke", "laptop", "overnight", "imagenet"):
        ids = [row.cell.id for row in make_plan(load_spec(Path("experiments/table1.yaml"), recipe=recipe)).rows]
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("recipe", "ids"), [("smoke", TABLE1_SMOKE), ("laptop", TABLE1_LAPTOP)], ids=["smoke", "laptop"]
)
def test_the_ids_of_table1_are_frozen(recipe: str, ids: dict[str, str]) -> None:
    rows = make_plan(load_spec(Path("experiments/table1.yaml"), recipe=recipe)).rows
    assert {row.name: row.cell.id for row in rows} == ids


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
        pytest.param({}, {"expect": "diverged"}, id="expectation"),
    ],
)
def test_what_resolves_to_the_same_cell_has_the_same_id(
    spec: ExperimentSpec, row: dict[str, Any], same: dict[str, Any]
) -> None:
    assert plan_cell(spec, row).id == plan_cell(spec, same).id


def test_what_is_not_content_does_not_change_the_id(spec: ExperimentSpec) -> None:
    recipe = spec.recipe.model_copy(
        update={"name": "other", "title": "Other", "note": "!", "workers": 8, "limits": LimitsSpec(memory_limit_gb=1)}
    )
    other = spec.model_copy(
        update={"name": "other", "title": "Other", "recipe": recipe, "seeds": 9, "columns": ("params",)}
    )
    renamed = other.model_copy(update={"rows": {"B": RowSpec(expect="diverged")}, "baseline": "B"})
    assert make_plan(renamed).rows[0].cell.id == make_plan(spec).rows[0].cell.id


def test_loading_workers_do_not_change_the_id(spec: ExperimentSpec) -> None:
    assert plan_cell(vary_recipe(spec, "data", loading_workers=4), {}).id == plan_cell(spec, {}).id


def test_a_default_spelled_out_does_not_change_the_id(spec: ExperimentSpec) -> None:
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
        "task": "regression",
        "num_classes": 5,
        "channels": 3,
        "image_size": 56,
        "train_images": 64,
        "val_images": 0,
        "test_images": 64,
        "crop_pct": 0.9,
        "interpolation": "bilinear",
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
        "amp": True,
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
def test_every_field_of_the_operator_changes_the_id(spec: ExperimentSpec, field: str) -> None:
    assert plan_cell(spec, {field: OPERATOR_CHANGES[field]}).id != plan_cell(spec, {}).id


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [(row, *change) for row, changes in LEVEL_CHANGES for change in changes.items()],
)
def test_every_field_of_a_level_changes_the_id_where_it_is_read(
    spec: ExperimentSpec, row: dict[str, Any], field: str, value: object
) -> None:
    assert plan_cell(spec, {**row, field: value}).id != plan_cell(spec, row).id
    assert plan_cell(spec, {field: value}).id == plan_cell(spec, {}).id


@pytest.mark.parametrize(
    ("part", "field"), [(part, field) for part, fields in RECIPE_CHANGES.items() for field in fields]
)
def test_every_field_of_the_recipe_changes_the_id(spec: ExperimentSpec, part: str, field: str) -> None:
    changed = vary_recipe(spec, part, **{field: RECIPE_CHANGES[part][field]})
    row = {"backbone": part} if part in ("volo", "deit") else {}
    assert plan_cell(changed, row).id != plan_cell(spec, row).id


def test_no_field_is_left_out_of_the_laws_above(spec: ExperimentSpec) -> None:
    of_levels = {field for _, changes in LEVEL_CHANGES for field in changes}
    operator = {*OPERATOR_CHANGES, *of_levels, "aggregation", "preset"}
    assert operator == set(OperatorSpec.model_fields)
    assert {*CORE, *FIELDS} <= operator
    of_rows = {"backbone", "sizes", "under", "stages", "expect"} | {
        "init_from",
        "image_size",
    }  # the last two in test_initial
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


def _train_volo(spec: ExperimentSpec, *, use_aux_head: bool = True, **training: Any) -> ExperimentSpec:
    """A plan in which VOLO alone is trained otherwise, on maps of 7x7 tokens."""
    volo = VoloSpec(
        patch_size=2, layers=(2, 1, 1), embed_dims=(12, 24, 24), num_heads=(2, 4, 6), use_aux_head=use_aux_head
    )
    backbones = spec.recipe.backbones.model_copy(update={"volo": volo})
    own = spec.recipe.training.model_copy(update=training)
    recipe = spec.recipe.model_copy(update={"backbones": backbones, "training_of": {"volo": own}})
    return spec.model_copy(update={"recipe": recipe})


def test_a_backbone_that_is_trained_otherwise_moves_no_other_cell(spec: ExperimentSpec) -> None:
    changed = _train_volo(spec, lr=5e-3)
    assert plan_cell(changed, {}).id == plan_cell(spec, {}).id
    assert plan_cell(changed, {"backbone": "volo_d2"}).id == plan_cell(spec, {"backbone": "volo_d2"}).id
    assert plan_cell(changed, {"backbone": "volo"}).training.lr == 5e-3
    assert plan_cell(changed, {}, cell={"backbone": "volo"}).training.lr == 5e-3


@pytest.mark.parametrize("field", TokenLabelsSpec.model_fields)
def test_every_field_of_token_labels_changes_the_id(spec: ExperimentSpec, field: str) -> None:
    labels = TokenLabelsSpec(grid=7)
    changed = {"grid": 14, "weight": 0.4, "mix_token": 0.5}
    before, after = (
        replace(plan_cell(spec, {}), training=spec.recipe.training.model_copy(update={"token_labels": value})).id
        for value in (labels, labels.model_copy(update={field: changed[field]}))
    )
    assert before != after


@pytest.mark.parametrize(
    ("use_aux_head", "grid", "message"),
    [
        (False, 7, "token_labels.grid is 7, but backbone 'volo' has no head over its tokens (use_aux_head)"),
        (True, 14, "token_labels.grid is 14, but backbone 'volo' has 7 tokens a side"),
    ],
    ids=["no head", "other tokens"],
)
def test_token_labels_need_a_head_over_as_many_tokens(
    spec: ExperimentSpec, use_aux_head: bool, grid: int, message: str
) -> None:
    labelled = _train_volo(spec, use_aux_head=use_aux_head, token_labels=TokenLabelsSpec(grid=grid))
    with pytest.raises(SpecError) as caught:
        plan_cell(labelled, {"backbone": "volo"})
    assert str(caught.value) == f"rows.A: recipe 'tiny': {message}"
    assert plan_cell(labelled, {}).training.token_labels is None


def test_as_many_token_labels_as_tokens_are_planned(spec: ExperimentSpec) -> None:
    labels = TokenLabelsSpec(grid=7)
    assert plan_cell(_train_volo(spec, token_labels=labels), {"backbone": "volo"}).training.token_labels == labels
