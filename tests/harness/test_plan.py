"""Order, floors, selection and skipped rows of a plan."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from harness.cell import Cell
from harness.errors import SpecError
from harness.plan import FLOORS, SkippedRow, make_plan, select_rows, select_seeds
from harness.spec import (
    ExperimentSpec,
    FactorsSpec,
    OperatorSpec,
    RowSpec,
)

PlanCell = Callable[..., Cell]
VaryRecipe = Callable[..., ExperimentSpec]


def test_the_plan_is_replicate_major(spec: ExperimentSpec) -> None:
    rows = {name: RowSpec(heads=heads) for name, heads in (("A", 1), ("B", 2), ("C", 4))}
    plan = make_plan(spec.model_copy(update={"rows": rows}))
    assert [(run.row.name, run.seed) for run in plan.runs] == [(row, seed) for seed in (0, 1) for row in "ABC"]


@pytest.mark.parametrize(("seeds", "expected"), [(None, [0, 1]), ((1, 1), [1]), ((0, 1), [0, 1])])
def test_some_replicates_of_a_plan_are_chosen(
    seeds: tuple[int, int] | None, expected: list[int], spec: ExperimentSpec
) -> None:
    plan = select_seeds(make_plan(spec), seeds)
    assert sorted({run.replicate for run in plan.runs}) == expected
    assert plan.rows == make_plan(spec).rows


def test_replicates_that_the_plan_lacks_are_an_error(spec: ExperimentSpec) -> None:
    with pytest.raises(SpecError, match=r"--seeds 1-2: the plan has the seeds 0 to 1; `--set seeds=3` adds more"):
        select_seeds(make_plan(spec), (1, 2))


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


def test_a_floor_does_not_depend_on_the_backbones_sizes(spec: ExperimentSpec, vary_recipe: VaryRecipe) -> None:
    recipe = spec.recipe.model_copy(update={"floor_width": 16})
    spec = spec.model_copy(update={"recipe": recipe})
    wider = vary_recipe(spec, "swin", embed_dim=24)
    assert [row.cell.id for row in make_plan(spec).rows[1:]] == [row.cell.id for row in make_plan(wider).rows[1:]]


def test_a_planned_run_can_be_pickled(spec: ExperimentSpec) -> None:
    run = make_plan(spec).runs[0]
    assert pickle.loads(pickle.dumps(run)) == run


def test_a_row_whose_backbone_the_recipe_lacks_is_skipped_with_its_reason(spec: ExperimentSpec) -> None:
    rows = {"A": RowSpec(), "B": RowSpec(backbone="volo_d5")}
    plan = make_plan(spec.model_copy(update={"rows": rows}))
    assert [row.name for row in plan.rows] == ["A"]
    assert {run.row.name for run in plan.runs} == {"A"}
    assert plan.skipped == (SkippedRow("B", "recipe 'tiny' has no sizes for backbone 'volo_d5'"),)


def test_rows_of_factors_are_planned_like_stated_ones(spec: ExperimentSpec, plan_cell: PlanCell) -> None:
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
            "rows.B: is the same cell as row 'A' under recipe 'tiny': their differences have no effect",
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
    reason = "is the same cell as row 'A' under recipe 'tiny': their differences have no effect"
    assert ([row.name for row in plan.rows], plan.skipped) == (["A"], (SkippedRow("B", reason),))


def test_rows_that_a_search_has_made_may_be_one_cell(spec: ExperimentSpec) -> None:
    plan = make_plan(spec.model_copy(update={"rows": {"A": RowSpec(), "B": RowSpec()}}), is_derived=True)
    assert [row.name for row in plan.rows] == ["A", "B"]


def test_a_row_cannot_have_a_floors_name(spec: ExperimentSpec) -> None:
    recipe = spec.recipe.model_copy(update={"floor_width": 16})
    with pytest.raises(SpecError, match="the name of a floor"):
        make_plan(spec.model_copy(update={"recipe": recipe, "rows": {FLOORS[0]: RowSpec()}}))
