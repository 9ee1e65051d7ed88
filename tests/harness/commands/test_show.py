from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness.commands import show
from harness.commands.portrait import describe_shown
from harness.commands.show import find_run, find_shown
from harness.errors import SpecError
from harness.plan import Plan, make_plan
from harness.reading import list_experiments, load_spec
from harness.record import EpochMetrics, Record, RunStatus
from harness.spec import ExperimentSpec
from harness.tracking import MlflowTracker

CURVE = tuple(EpochMetrics(epoch, 10 * epoch, {"val/top1": 50.0 + epoch, "train/loss": 2.0}) for epoch in range(1, 31))


@dataclass
class Desk:
    """A store with an open invocation of the small experiment."""

    tracker: MlflowTracker
    spec: ExperimentSpec
    plan: Plan

    def __post_init__(self) -> None:
        self.tracker.prepare(self.spec.name)
        self.parent_id = self.tracker.start_invocation(self.spec, command="harness run small.yaml", provenance={})

    def execute(
        self, row: str, seed: int, status: RunStatus = RunStatus.OK, detail: str = "", num_epochs: int = 2
    ) -> str:
        run = next(run for run in self.plan.runs if (run.row.name, run.seed) == (row, seed))
        provenance = {"commit": "abcdef", "dirty": "true", "kernels": "cpu (avx2)"}
        run_id = self.tracker.start_run(run, spec=self.spec, parent_id=self.parent_id, provenance=provenance)
        curve = CURVE[:num_epochs]
        for epoch in curve:
            self.tracker.log_epoch(run_id, epoch)
        metrics = {**curve[-1].metrics, "test/top1": 58.25, "seconds": 300.0}
        record = Record(run.row.cell.id, row, seed, status, metrics, curve, provenance, detail)
        self.tracker.finish_run(run_id, record)
        return run_id

    def cell_id(self, row: str) -> str:
        return next(planned.cell.id for planned in self.plan.rows if planned.name == row)

    def show(self, prefix: str) -> str:
        return describe_shown(find_shown(self.tracker, prefix), store="the store")


@pytest.fixture
def desk(tracking_uri: str, small_spec: ExperimentSpec, small_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> Desk:
    short = small_spec.model_copy(update={"title": "short"})
    monkeypatch.setattr(show, "list_experiments", lambda: {"table1": list_experiments()["table1"]})  # all take seconds
    return Desk(MlflowTracker(tracking_uri), short, replace(small_plan, spec=short))


def test_a_run_is_shown_with_all_that_is_known(desk: Desk) -> None:
    run_id = desk.execute("Net7-N", 1)
    text = desk.show(run_id[:10])
    assert run_id in text
    assert "in small, recipe tiny, as 'Net7-N'" in text
    assert ["test/top1", "58.25"] in [line.split() for line in text.splitlines()]
    assert ["commit", "abcdef"] in [line.split() for line in text.splitlines()]
    assert "stage 1: parameterization query_key + query_position" in text
    assert "neighborhood sliding_window" in text
    assert "lr 0.001, batch_size 10, epochs 2" in text
    assert "weight_decay" not in text  # at its default
    assert "harness run small.yaml\n  (at commit abcdef and changes that were not committed)" in text


def test_a_curve_is_thinned_and_keeps_its_end(desk: Desk) -> None:
    text = desk.show(desk.execute("Swin-T", 0, num_epochs=30))
    curve = text.partition("curve\n")[2].partition("\n\n")[0].splitlines()
    assert curve[0].endswith("val/top1, 53 to 80")
    rows = [line.split() for line in curve[2:]]
    assert [int(row[0]) for row in rows] == list(range(3, 31, 3))
    assert rows[-1][-2:] == ["80", "█" * 30]
    assert rows[0][-2:] == ["53", "█"]


def test_a_cell_is_shown_with_the_newest_run_of_every_seed(desk: Desk) -> None:
    first = desk.execute("Net1", 0, RunStatus.FAILED, "KeyError: 'x'")
    runs = [desk.execute("Net1", seed) for seed in (0, 1)]
    shown = find_shown(desk.tracker, desk.cell_id("Net1")[:8])
    assert [run.run.run_id for run in shown.runs] == runs
    assert [run.run_id for run in shown.earlier] == [first]
    plain = shown.to_plain()
    assert set(plain) == {"cell_id", "places", "levels", "config", "runs", "earlier"}
    assert set(plain["runs"][0]) == {
        *("run_id", "reused_from", "experiment", "recipe", "overrides", "row", "seed", "levels", "status", "reason"),
        *("standing", "standing_reason", "epoch"),
        *("cause", "step", "module", "started", "ended", "process", "limits", "metrics", "curve", "provenance"),
        *("command", "location", "artifacts"),
    }
    assert "seed 0: failed: KeyError: 'x'" in desk.show(first).splitlines()


def test_a_cell_that_was_never_trained_is_found_in_the_shipped_experiments(desk: Desk) -> None:
    plan = make_plan(load_spec(Path("table1"), recipe="smoke"))
    cell = next(row.cell for row in plan.rows if row.name == "Net7")
    text = desk.show(cell.id)
    assert "in table1, recipe smoke, as 'Net7'" in text
    assert "never trained: the store has no run of it" in text
    assert "harness run" in text


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("net7", "digits and the letters a to f, got 'net7'"),
        ("ab", "three characters"),
        ("0" * 32, "no run and no cell"),
    ],
)
def test_an_id_that_is_none_is_the_users_mistake(desk: Desk, prefix: str, expected: str) -> None:
    with pytest.raises(SpecError, match=expected):
        find_shown(desk.tracker, prefix)


def test_an_id_that_may_be_several_lists_them(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [desk.execute("Net1", 0), desk.execute("Swin-T", 0)]
    every = desk.tracker.find_runs()
    alike = [replace(run, run_id=f"abc{number}") for number, run in enumerate(every)]
    monkeypatch.setattr(MlflowTracker, "find_runs", lambda _self, _prefix: alike)
    with pytest.raises(SpecError, match=r"2 ids begin with 'abc': run abc0 \(Swin-T seed 0 of small\), run abc1"):
        find_shown(desk.tracker, "abc")
    with pytest.raises(SpecError, match=r"2 ids begin with 'abc': run abc0"):
        find_run(desk.tracker, "abc")
    assert len(runs) == 2


def test_a_run_alone_is_found_by_the_beginning_of_its_id(desk: Desk) -> None:
    run_id = desk.execute("Net1", 0)
    assert find_run(desk.tracker, run_id[:6]).run_id == run_id
    for prefix, expected in (("it's", "digits and the letters a to f"), (desk.cell_id("Net1"), "no run in the store")):
        with pytest.raises(SpecError, match=expected):
            find_run(desk.tracker, prefix)
