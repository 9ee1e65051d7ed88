import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest

from harness.checkpoint import Checkpoint, locate_checkpoints
from harness.commands.status import ExperimentStatus, describe_status, list_uncounted, read_status
from harness.errors import SpecError
from harness.execution.ledger import find_digests
from harness.plan import Plan, PlannedRun, make_plan
from harness.reading import list_experiments, load_spec
from harness.record import EpochMetrics, Record, RunStatus
from harness.report.files import find_records
from harness.tracking import StoredRun, Tracker
from harness.tracking.process import ProcessIdentity
from harness.tracking.record_files import write_runs
from tests.harness.tracking.test_record_files import make_run

RESULTS = Path("results")

EXPERIMENT = """\
title: Three rows
recipe: smoke
baseline: Swin-T
rows:
  Swin-T: {}
  Net1: {parameterization: [query_key]}
  Net4: {parameterization: [position_bias]}
seeds: 2
"""


@dataclass(frozen=True)
class Shelf:
    """A tracker that only remembers."""

    runs: tuple[StoredRun, ...]
    checkpoints: Path = Path("checkpoints")

    def list_experiments(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run.experiment for run in self.runs))

    def find_runs(self, *, experiments: Collection[str] | None = None) -> list[StoredRun]:
        return [run for run in self.runs if experiments is None or run.experiment in experiments]

    def find_runs_of(self, cell_ids: Iterable[str]) -> list[StoredRun]:
        wanted = set(cell_ids)
        return [run for run in self.runs if run.cell_id in wanted]


class Desk:
    """An experiment of ten runs, two of each row and floor."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "three.yaml"
        self.path.write_text(EXPERIMENT)
        self.plan: Plan = make_plan(load_spec(self.path))
        self.digests = find_digests(self.plan, data_dir=None)

    def find(self, row: str, seed: int) -> PlannedRun:
        return next(run for run in self.plan.runs if (run.row.name, run.seed) == (row, seed))

    def store(self, row: str, seed: int, status: RunStatus | None = RunStatus.OK, **changes: object) -> StoredRun:
        """A run that took ten seconds; without a status one that a process has open, since four seconds."""
        run, now = self.find(row, seed), time.time()
        code, data = self.digests[run.row.cell.id]
        record = Record(
            run.row.cell.id, row, seed, status or RunStatus.OK, {"seconds": 10.0, "test/top1": 80.0},
            provenance={"code_digest": code, "data_digest": data}, run_id=f"{row}{seed}", end_time=now,
            status_detail=DETAILS.get(status, ""), step=412 if status == RunStatus.DIVERGED else None,
        )  # fmt: skip
        stored = StoredRun(
            f"{row}{seed}", "three", "smoke", (), run.row.cell.id, row, seed, {},
            record if status else None, is_live=status is None, started=now - (4.0 if status is None else 10.0),
            process=ProcessIdentity("box", 7, 0.0),
        )  # fmt: skip
        return replace(stored, **changes)

    def read(self, *runs: StoredRun) -> ExperimentStatus:
        (status,) = read_status(cast("Tracker", Shelf(runs)), [self.path], results=RESULTS)
        return status


DETAILS = {RunStatus.FAILED: "KeyError: 'x'\nat line 3", RunStatus.DIVERGED: "the training loss is nan"}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)


def make_stale(run: StoredRun) -> StoredRun:
    assert run.record is not None
    return replace(run, record=replace(run.record, provenance={"code_digest": "old", "data_digest": "old"}))


def test_an_interrupted_run_with_a_checkpoint_is_resumable(desk: Desk) -> None:
    run = desk.store("Net4", 0, RunStatus.INTERRUPTED)
    code, data = desk.digests[run.cell_id]
    origin, curve = {"code_digest": code, "data_digest": data}, (EpochMetrics(1, 10, {}), EpochMetrics(2, 20, {}))
    folder = locate_checkpoints(Path("checkpoints"), run.cell_id, 0)
    folder.write(Checkpoint(origin, run.run_id, 25, seconds=1.0, written=0.0, curve=curve), {})
    status = desk.read(run)
    assert status.counts["resumable"] == 1
    (state,) = [state for state in status.runs if state.state == "resumable"]
    assert (state.row, state.seed, state.epoch) == ("Net4", 0, 2)
    text = describe_status([status])
    assert "three smoke: Net4 seed 0 continues after epoch 2, step 25 (harness show Net40)" in text
    folder.write(Checkpoint({**origin, "code_digest": "old"}, run.run_id, 30, 1.0, 0.0, curve), {})
    assert desk.read(run).counts["resumable"] == 0


def test_every_run_is_in_one_state(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)  # the time left is less what the running one has had
    status = desk.read(
        desk.store("Swin-T", 0),
        desk.store("Swin-T", 1, RunStatus.DIVERGED),
        make_stale(desk.store("Net1", 0)),
        desk.store("Net1", 1, RunStatus.FAILED),
        desk.store("Net4", 0, RunStatus.INTERRUPTED),
        desk.store("Net4", 1, None),
    )
    assert status.counts == {"done": 2, "running": 1, "resumable": 0, "failed": 1, "stale": 1, "open": 5}
    text = describe_status([status])
    assert text.splitlines()[2].split() == ["three", "smoke", "10", "2", "1", "1", "1", "5", "~38", "s*"]
    assert "three smoke: Swin-T seed 1 diverged at step 412: the training loss is nan (harness show Swin-T1)" in text
    assert "three smoke: Net1 seed 1 failed: KeyError: 'x' (harness show Net11)" in text
    assert "three smoke: Net4 seed 1 running (harness show Net41)" in text


def test_runs_of_the_record_file_count_as_stored_ones_until_the_store_has_them(desk: Desk) -> None:
    code, data = desk.digests[desk.find("Net1", 1).row.cell.id]
    provenance = {"code_digest": code, "data_digest": data}
    numbers = [number for number, run in enumerate(desk.plan.runs) if run.row.name == "Net1"]
    runs = [make_run(desk.plan, number, ended=time.time(), provenance=provenance) for number in numbers]
    write_runs(find_records(desk.plan.spec, RESULTS), runs)
    stored = desk.store("Net1", 0, origin=runs[0].origin)
    status = desk.read(stored)
    assert (status.counts["done"], status.counts["open"]) == (2, 8)
    assert {run.run_id for run in status.runs if run.state == "done"} == {"Net10", ""}
    assert status.seconds_left is not None
    bad = replace(runs[1], record=replace(runs[1].record, status=RunStatus.DIVERGED, status_detail="nan"))
    write_runs(find_records(desk.plan.spec, RESULTS), [bad])
    assert describe_status([desk.read(stored)]).splitlines()[4] == "three smoke: Net1 seed 1 diverged: nan"


def test_what_a_dead_process_left_open_is_open(desk: Desk) -> None:
    assert desk.read(desk.store("Net4", 1, None, is_live=False)).counts["open"] == 10


def test_the_time_left_is_that_of_what_is_missing_on_the_recipes_workers(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    names = [row.name for row in desk.plan.rows]
    first = [desk.store(name, 0) for name in names]
    status = desk.read(*first)
    assert status.seconds_left == pytest.approx(5 * 10.0 / desk.plan.spec.recipe.workers)
    assert status.is_measured
    running = desk.read(*first, desk.store("Net4", 1, None))
    assert running.seconds_left == pytest.approx((4 * 10.0 + 6.0) / desk.plan.spec.recipe.workers)
    done = desk.read(*first, *(desk.store(name, 1) for name in names))
    assert done.seconds_left == 0.0
    assert desk.read().seconds_left is None


def test_shipped_experiments_have_a_line_on_request(desk: Desk) -> None:
    shelf = cast("Tracker", Shelf((desk.store("Net1", 0),)))
    statuses = read_status(shelf, results=RESULTS, recipe="smoke", shipped=True)
    assert [status.experiment for status in statuses] == [*list_experiments(), "three"]
    assert {status.recipe for status in statuses} == {"smoke"}
    assert [status.experiment for status in read_status(shelf, results=RESULTS)] == ["three"]


def test_experiments_of_the_project_are_planned(desk: Desk) -> None:
    """Those in its folder, run or not, and a file beside it that has runs; a search is none."""
    Path("experiments").mkdir()
    (Path("experiments") / "mine.yaml").write_text(EXPERIMENT)
    (Path("experiments") / "mine_too.yaml").write_text(f"{EXPERIMENT}search: {{ghost_lambda: [0, 1]}}\n")
    Path("harness.yaml").write_text("plugins: []\n")
    statuses = read_status(cast("Tracker", Shelf((desk.store("Net1", 0),))), results=RESULTS)
    assert [(status.experiment, status.is_planned, len(status.runs)) for status in statuses] == [
        ("three", True, 10),
        ("mine", True, 10),
    ]
    assert "--shipped" in describe_status([])


def test_a_failure_that_another_experiment_has_repaired_is_not_listed(desk: Desk) -> None:
    failed = desk.store("Net1", 0, RunStatus.FAILED, experiment="elsewhere", started=1.0)
    repaired = replace(desk.store("Net1", 0, experiment="another", run_id="ok", started=2.0), row="Mine")
    for runs, counted in (((failed,), "failed"), ((failed, repaired), "done")):
        statuses = read_status(cast("Tracker", Shelf(runs)), results=RESULTS, everything=True)
        (status,) = (status for status in statuses if status.experiment == "elsewhere")
        assert status.counts[counted] == 1
        assert ("elsewhere smoke: Net1 seed 0 failed" in describe_status(statuses)) is (counted == "failed")


def test_runs_whose_file_is_not_at_hand_are_counted_from_the_store(desk: Desk) -> None:
    plain = desk.store("Swin-T", 0), desk.store("Net1", 0, RunStatus.FAILED), desk.store("Net4", 0, None)
    changed = desk.store("Swin-T", 0, overrides=("training.lr=1",), run_id="other", cell_id="other")
    desk.path.unlink()
    shelf = cast("Tracker", Shelf((*plain, changed)))
    statuses = read_status(shelf, results=RESULTS, recipe="smoke", everything=True)
    others = [status for status in statuses if status.experiment == "three"]
    assert [(status.overrides, len(status.runs), status.is_planned) for status in others] == [
        ((), 3, False),
        (("training.lr=1",), 1, False),
    ]
    assert others[0].counts == {"done": 1, "running": 1, "resumable": 0, "failed": 1, "stale": 0, "open": 0}
    assert "counted from the store alone" in describe_status(others)
    assert read_status(shelf, results=RESULTS) == []
    assert list_uncounted(shelf, []) == ["three"]
    text = describe_status([], [f"mine{number}" for number in range(7)])
    assert (
        "other experiments in the store: mine0, mine1, mine2, mine3, mine4 and 2 more; `harness status --all`" in text
    )


def test_a_shipped_experiment_has_a_line_for_each_recipe_that_it_was_run_under(desk: Desk) -> None:
    run = desk.store("Swin-T", 0, experiment="table1")
    statuses = read_status(cast("Tracker", Shelf((run,))), results=RESULTS, shipped=True)
    found = [(status.experiment, status.recipe) for status in statuses]
    assert [recipe for name, recipe in found if name == "table1"] == ["laptop", "smoke"]


def test_an_unknown_path_is_the_users_mistake() -> None:
    with pytest.raises(SpecError, match="did you mean 'table1'"):
        read_status(cast("Tracker", Shelf(())), [Path("tabel1")], results=RESULTS)
