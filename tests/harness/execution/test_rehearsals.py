from harness.execution.rehearsals import order_runs
from harness.plan import make_plan
from harness.spec import ExperimentSpec, RowSpec
from harness.trace import Rehearsal


def test_within_a_replicate_the_baseline_is_first_and_then_the_longest(spec: ExperimentSpec) -> None:
    rows = {name: RowSpec(heads=heads) for name, heads in (("short", 1), ("long", 2), ("baseline", 4), ("new", 3))}
    plan = make_plan(spec.model_copy(update={"rows": rows, "baseline": "baseline"}))
    seconds = {"short": 1.0, "long": 9.0, "baseline": 5.0}
    known = {
        row.cell.id: Rehearsal(row.cell.id, 0, "", "", {}, metrics={"seconds": seconds[row.name]})
        for row in plan.rows
        if row.name in seconds
    }
    ordered = order_runs(reversed(plan.runs), known, (), baseline="baseline")
    assert [run.row.name for run in ordered if run.replicate == 0] == ["baseline", "long", "short", "new"]
    assert [run.replicate for run in ordered] == sorted(run.replicate for run in plan.runs)
