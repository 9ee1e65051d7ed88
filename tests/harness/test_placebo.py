"""The placebo: the baseline's cell with other seeds; what its row may state."""

from pathlib import Path

import pytest

from harness.confounds import check_confounds
from harness.errors import SpecError
from harness.plan import Plan, SkippedRow, make_plan, select_rows
from harness.reading import load_spec
from harness.spec import ExperimentSpec, FactorsSpec, RowSpec

FILE = """\
title: With a placebo
recipe: smoke
baseline: A
rows:
  A: {heads: 2}
  B: {heads: 1}
  Again:
    placebo: true
"""


def plan_with(spec: ExperimentSpec, **update: object) -> Plan:
    rows = {"A": RowSpec(parameterization=("query_key",), heads=1), "B": RowSpec(), "Again": RowSpec(placebo=True)}
    return make_plan(spec.model_copy(update={"rows": rows, **update}))


def test_a_placebo_is_the_cell_of_the_baseline_with_other_seeds(spec: ExperimentSpec) -> None:
    plan = plan_with(spec)
    cells = {row.name: row.cell.id for row in plan.rows}
    assert cells["Again"] == cells["A"] != cells["B"]
    assert [(run.row.name, run.seed, run.replicate) for run in plan.runs] == [
        *(("A", 0, 0), ("B", 0, 0), ("Again", 1000, 0)),
        *(("A", 1, 1), ("B", 1, 1), ("Again", 1001, 1)),
    ]
    assert plan.placebo is not None
    assert plan.placebo.name == "Again"
    assert select_rows(plan, ["Again"]).rows == (plan.placebo,)


def test_the_baseline_of_a_placebo_may_be_a_row_of_factors(spec: ExperimentSpec) -> None:
    factors = FactorsSpec(normalization=("softmax", "identity"))
    plan = make_plan(
        spec.model_copy(update={"rows": {"Again": RowSpec(placebo=True)}, "factors": factors, "baseline": "identity"})
    )
    cells = {row.name: row.cell.id for row in plan.rows}
    assert cells["Again"] == cells["identity"] != cells["softmax"]


def test_another_row_with_the_cell_of_the_baseline_is_still_refused(spec: ExperimentSpec) -> None:
    rows = {"A": RowSpec(), "Copy": RowSpec(normalization="softmax"), "Again": RowSpec(placebo=True)}
    with pytest.raises(SpecError, match=r"rows\.Copy: is the same cell as row 'A'"):
        make_plan(spec.model_copy(update={"rows": rows}))


def test_a_placebo_is_no_confound_where_the_baseline_has_a_backbone_of_its_own(spec: ExperimentSpec) -> None:
    rows = {"A": RowSpec(backbone="volo", preset="elsa", also_changes=("x",)), "Again": RowSpec(placebo=True)}
    plan = make_plan(spec.model_copy(update={"rows": rows}))
    check_confounds(plan, {})
    assert [row.also_changes for row in plan.rows] == [("x",), ()]


def test_a_placebo_is_skipped_where_its_baseline_starts_from_runs_of_another_row(spec: ExperimentSpec) -> None:
    recipe = spec.recipe.model_copy(update={"name": "finetune", "init_recipe": spec.recipe})
    rows = {"Source": RowSpec(), "A": RowSpec(init_from="Source"), "Again": RowSpec(placebo=True)}
    plan = make_plan(spec.model_copy(update={"recipe": recipe, "rows": rows}))
    assert [row.name for row in plan.rows] == ["A"]
    reason = "the baseline starts from row 'Source', which has no runs with the seeds of a placebo"
    assert SkippedRow("Again", reason) in plan.skipped


@pytest.mark.parametrize(
    ("old", "new", "messages"),
    [
        (
            "    placebo: true",
            "    placebo: true\n    heads: 2\n    sizes: {smoke: {embed_dim: 16}}",
            [
                "mine.yaml:9: rows.Again.heads: a placebo is the baseline again and states nothing else",
                "mine.yaml:10: rows.Again.sizes: a placebo is the baseline again and states nothing else",
            ],
        ),
        (
            "A: {heads: 2}",
            "A: {placebo: true}",
            [
                "mine.yaml:5: rows.A.placebo: the baseline cannot be its own placebo",
                "mine.yaml:8: rows.Again.placebo: an experiment has one placebo, 'A'",
            ],
        ),
        (
            "B: {heads: 1}",
            "B: {init_from: Again}",
            ["mine.yaml:6: rows.B.init_from: 'Again' is the placebo; the baseline is 'A'"],
        ),
    ],
    ids=["states more", "is the baseline, and is not alone", "is a source"],
)
def test_what_a_placebo_cannot_be_is_told_with_its_line(
    tmp_path: Path, old: str, new: str, messages: list[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(FILE.replace(old, new))
    with pytest.raises(SpecError) as caught:
        make_plan(load_spec(path))
    lines = str(caught.value).replace(f"{tmp_path}/", "").splitlines()
    assert len(lines) == len(messages)
    for message in messages:
        assert any(line.startswith(message) for line in lines), message
