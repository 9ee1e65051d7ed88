"""Seeds until resolved: which runs are trained, and that decisions do not depend on when they are asked for."""

from dataclasses import replace

import numpy as np
import pytest

from harness.errors import SpecError
from harness.execution import Looked, Planned, RunOptions, TableWritten
from harness.plan import Plan, PlannedRun, make_plan
from harness.spec import ExperimentSpec, RowSpec
from harness.table import make_results
from harness.tracking import MlflowTracker
from tests.harness.execution.test_plan import PlayedEngine, play

NOISE = np.random.default_rng(7).normal(0, 1, (3, 12))
GAIN = {"Swin-T": 0.0, "Net1": 9.0, "Net7-N": 1.9}


def score(run: PlannedRun) -> float:
    """Net1 is far better than the baseline, Net7-N hardly."""
    name = run.row.name
    return 50 + GAIN[name] + float(NOISE[list(GAIN).index(name), run.seed])


@pytest.fixture
def until(small_spec: ExperimentSpec) -> Plan:
    recipe = small_spec.recipe.model_copy(update={"floor_width": None})
    return make_plan(small_spec.model_copy(update={"recipe": recipe, "until_resolved": 7, "margin": 0.2}))


def test_open_rows_alone_are_trained_up_to_the_next_look(
    until: Plan, tracker: MlflowTracker, options: RunOptions
) -> None:
    events, trained = play(until, tracker, options, PlayedEngine(score=score))
    first = [(row.name, seed) for seed in range(3) for row in until.rows]
    later = [(name, seed) for seed in range(3, 7) for name in ("Swin-T", "Net7-N")]
    assert trained == [*first, *later]
    assert [len(event.to_do) for event in events if isinstance(event, Planned)] == [9, 4, 4]
    assert [event.course.last.seeds for event in events if isinstance(event, Looked) and event.course.last] == [3, 5, 7]
    table = events[-1]
    assert isinstance(table, TableWritten)
    frame = table.results.frame.set_index("row")
    assert dict(frame["n"]) == {"Swin-T": 7, "Net1": 3, "Net7-N": 7}
    assert frame.loc["Net1", "verdict"] == "better"
    assert not any("partial" in marks for marks in frame["marks"])
    again, trained = play(until, tracker, options, PlayedEngine(score=score))
    assert trained == []
    assert isinstance(again[-1], TableWritten)
    assert again[-1].results.frame["p"].equals(table.results.frame["p"])


def test_an_interrupted_call_goes_on_to_the_same_table(
    until: Plan, tracker: MlflowTracker, options: RunOptions
) -> None:
    def stop_once(run: PlannedRun) -> str:
        return "interrupted" if (run.row.name, run.seed) == ("Net7-N", 3) else "ok"

    events, trained = play(until, tracker, options, PlayedEngine(stop_once, score))
    assert max(seed for _, seed in trained) == 4
    assert isinstance(events[-1], TableWritten)
    marks = events[-1].results.frame.set_index("row")["marks"]
    assert ["partial" in marks[name] for name in ("Swin-T", "Net1", "Net7-N")] == [False, False, True]
    _, more = play(until, tracker, options, PlayedEngine(score=score))
    assert more == [("Net7-N", 3), *((name, seed) for seed in (5, 6) for name in ("Swin-T", "Net7-N"))]


@pytest.mark.slow
def test_runs_that_no_look_asked_for_change_no_decision(
    until: Plan, tracker: MlflowTracker, options: RunOptions
) -> None:
    events, _ = play(until, tracker, options, PlayedEngine(score=score))
    fixed = make_plan(until.spec.model_copy(update={"until_resolved": None, "seeds": 7}))
    all_events, trained = play(fixed, tracker, options, PlayedEngine(score=score))
    assert trained == [("Net1", seed) for seed in range(3, 7)]
    assert isinstance(events[-1], TableWritten)
    assert isinstance(all_events[-1], TableWritten)
    everything = [record for row in all_events[-1].results.replicates.values() for record in row.records.values()]
    made = make_results(until, everything)
    for column in ("n", "top1_mean", "delta", "p", "verdict"):
        assert made.frame[column].equals(events[-1].results.frame[column]), column


@pytest.mark.slow
def test_a_placebo_gets_the_seeds_of_the_baseline(until: Plan, tracker: MlflowTracker, options: RunOptions) -> None:
    rows = {**until.spec.rows, "Again": RowSpec(placebo=True)}
    plan = make_plan(until.spec.model_copy(update={"rows": rows}))

    def score_all(run: PlannedRun) -> float:
        return 50.0 + float(NOISE[0, -run.replicate - 1]) if run.row.is_placebo else score(run)

    events, trained = play(plan, tracker, options, PlayedEngine(score=score_all))
    assert [seed for name, seed in trained if name == "Again"] == [*range(1000, 1007)]
    assert [(name, seed) for name, seed in trained if name != "Again"] == [
        *((name, seed) for seed in range(3) for name in until.stated),
        *((name, seed) for seed in range(3, 7) for name in ("Swin-T", "Net7-N")),
    ]
    assert isinstance(events[-1], TableWritten)
    frame = events[-1].results.frame.set_index("row")
    assert (frame.loc["Again", "n"], frame.loc["Again", "verdict"]) == (7, "unresolved")


def test_a_row_with_a_bad_outcome_stays_unresolved_and_gets_no_more_seeds(
    until: Plan, tracker: MlflowTracker, options: RunOptions
) -> None:
    def diverge(run: PlannedRun) -> str:
        return "diverged" if (run.row.name, run.seed) == ("Net7-N", 1) else "ok"

    events, trained = play(until, tracker, options, PlayedEngine(diverge, score))
    assert len(trained) == 9
    assert isinstance(events[-1], TableWritten)
    assert events[-1].results.frame.set_index("row").loc["Net7-N", "verdict"] == "unresolved"


def test_a_selection_of_rows_is_refused(until: Plan, tracker: MlflowTracker, options: RunOptions) -> None:
    with pytest.raises(SpecError, match="leave out the selection of rows"):
        play(until, tracker, replace(options, rows=("Net1",)))
