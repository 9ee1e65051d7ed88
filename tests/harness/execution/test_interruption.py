"""A run's life is cut short between every two writes, in turn; then the same command goes on to a complete table."""

import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from sqlalchemy import event
from sqlalchemy.orm import Session

from harness.commands.overview import describe_plan
from harness.commands.portrait import describe_shown
from harness.commands.show import find_shown
from harness.commands.status import read_status
from harness.engines.engine import Event, Job, Message, Returned, Started
from harness.execution import RunOptions, TableWritten, run_plan
from harness.execution.context import execute_rehearsal
from harness.execution.ledger import Standing, read_ledger
from harness.execution.open_run import Kept, Measured, Opened, OpenRun
from harness.execution.rehearsals import list_stored
from harness.plan import Plan, make_plan
from harness.record import EpochMetrics, RunStatus
from harness.shapes import measure_shape
from harness.tracking import MlflowTracker
from harness.tracking.process import ProcessIdentity
from tests.rehearsals import play_rehearsal

measure = cache(measure_shape)

METRICS = {"val/top1": 40.0, "train/loss": 1.0, "train/images_per_second": 100.0}


class Killed(BaseException):
    """The process ends here: nothing that it would do afterwards happens."""


@dataclass
class Writes:
    """Counts what is written to a store, and raises after the write `last`; of a killed process nothing comes later."""

    last: int | None = None
    error: type[BaseException] = KeyboardInterrupt
    look: Callable[[], object] = lambda: None
    count: int = 0
    is_looking: bool = field(default=False, init=False)

    def add(self) -> None:
        if self.is_looking:
            return
        self.count += 1
        self.is_looking = True
        self.look()
        self.is_looking = False
        if self.last is not None and (self.count == self.last or (self.error is Killed and self.count > self.last)):
            raise self.error

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Every commit, and every file beside the database."""

        def commit(session: Session) -> None:
            if session.info.pop("writes", False):
                self.add()

        def flush(session: Session, *_: object) -> None:
            session.info["writes"] = True

        log_artifact = LocalArtifactRepository.log_artifact

        def log(*args: object, **kwargs: object) -> None:
            log_artifact(*args, **kwargs)  # type: ignore[arg-type]
            self.add()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LocalArtifactRepository, "log_artifact", log)
            event.listen(Session, "after_commit", commit)
            event.listen(Session, "after_flush", flush)
            event.listen(Session, "after_bulk_update", lambda context: flush(context.session))
            try:
                yield
            finally:
                event.remove(Session, "after_commit", commit)
                event.remove(Session, "after_flush", flush)


class OwnProcess:
    """An engine that does what a worker does, in this process, and leaves the end of a run to nobody else."""

    workers = 1
    threads = 1

    def execute(self, jobs: Iterable[Job]) -> Generator[Event, None, None]:
        for job in jobs:
            run, context = job.args
            yield Started(job.name, 1)
            if job.function is execute_rehearsal:
                yield Returned(job.name, play_rehearsal(run, context), "")
                continue
            open_run = OpenRun(run, context.spec.recipe.limits, context.provenance)
            epochs = [EpochMetrics(epoch, 10 * epoch, METRICS) for epoch in (1, 2)]
            tested = Measured({"test/top1": 50.0, "params": 1000.0, "macs": 5000.0})
            place = {**context.provenance, "kernels": "those that the process of a run finds"}
            opened, kept = Opened(place, continues=False), Kept("weights.pt", b"weights")
            for note in (opened, *epochs, tested, kept):
                open_run.add(note)
                yield Message(job.name, note)
            yield Returned(job.name, open_run.to_record(RunStatus.OK), "")

    def take_rest(self) -> list[Event]:
        return []

    def stop(self, name: str) -> None:
        raise NotImplementedError


@pytest.fixture
def shared(plan: Plan) -> Plan:
    """Two rows; the other experiment has trained the first."""
    return make_plan(plan.spec.model_copy(update={"name": "shared", "seeds": 1}))


@pytest.fixture
def other(plan: Plan) -> Plan:
    rows = {"Swin-T": plan.spec.rows["Swin-T"]}
    return make_plan(plan.spec.model_copy(update={"name": "other", "seeds": 1, "rows": rows}))


@pytest.fixture(autouse=True)
def _empty_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To plan all shipped experiments takes seconds, and they have no runs here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.commands.status.list_experiments", dict)


def play(plan: Plan, tracker: MlflowTracker, options: RunOptions) -> TableWritten:
    with closing(run_plan(plan, tracker=tracker, engine=OwnProcess(), options=options)) as events:
        *_, last = events
    assert isinstance(last, TableWritten)
    return last


def look(plan: Plan, tracker: MlflowTracker) -> None:
    """All that a second person asks a store in any instant."""
    tracker.running_elsewhere()
    read_status(tracker, results=Path("results"))
    entries = read_ledger(plan, tracker, {})
    shapes = {row.cell.id: measure(row.cell) for row in plan.rows}
    describe_plan(plan, entries, list_stored(plan, tracker, {}, {}), shapes)
    for run in tracker.find_runs():
        describe_shown(find_shown(tracker, run.run_id), store="store")
    tracker.read_records(plan.spec.name, [row.cell.id for row in plan.rows])


def require_complete(plan: Plan, tracker: MlflowTracker, options: RunOptions) -> None:
    """The same command goes on to a complete table, and everything that asks the store has an answer."""
    look(plan, tracker)
    assert list(play(plan, tracker, options).results.frame["n"]) == [1, 1]
    look(plan, tracker)
    assert {entry.standing for entry in read_ledger(plan, tracker, {})} == {Standing.DONE}
    assert not tracker.running_elsewhere()
    client = MlflowClient(tracker.store.uri)
    runs = client.search_runs([found.experiment_id for found in client.search_experiments()], "")
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
    for run in (run for run in runs if run.data.tags["kind"] != "rehearsal"):
        wanted = ("command",) if run.data.tags["kind"] == "invocation" else ("row", "seed", "recipe")
        assert set(wanted) <= run.data.params.keys()
        assert "status" in run.data.tags
    trained = [run for run in runs if run.data.tags["kind"] in ("run", "reused")]
    names = [(run.info.experiment_id, run.data.tags["kind"], run.info.run_name) for run in trained]
    assert len(set(names)) == len(names)


def count_writes(plan: Plan, tracker: MlflowTracker, options: RunOptions, writes: Writes) -> int:
    with writes.watched():
        play(plan, tracker, options)
    return writes.count


@pytest.mark.slow
@pytest.mark.parametrize(("error", "step"), [(KeyboardInterrupt, 4), (Killed, 2)], ids=["interrupted", "killed"])
def test_whatever_ends_a_run_between_two_writes_the_next_command_completes_the_table(
    error: type[BaseException],
    step: int,
    shared: Plan,
    other: Plan,
    tracker: MlflowTracker,
    options: RunOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At every second write, or every fourth; what is interrupted still writes its outcome."""
    tracker.prepare(shared.spec.name)
    play(other, tracker, options)
    assert tracker.store.database is not None
    dead = replace(ProcessIdentity.current(), pid=2**22)  # above the largest of Linux
    with closing(sqlite3.connect(":memory:")) as begun, closing(sqlite3.connect(tracker.store.database)) as database:
        database.backup(begun)
        number = count_writes(shared, tracker, options, Writes())
        assert number > 20
        for last in range(1, number + 1, step):
            begun.backup(database)
            with monkeypatch.context() as patch, Writes(last, error).watched(), pytest.raises(error):
                patch.setattr(ProcessIdentity, "current", lambda: dead)
                play(shared, tracker, options)
            require_complete(shared, tracker, options)


@pytest.mark.slow
def test_a_second_driver_may_look_between_any_two_writes(
    shared: Plan, other: Plan, tracker: MlflowTracker, options: RunOptions
) -> None:
    play(other, tracker, options)
    second = MlflowTracker(tracker.store.uri)

    def drive() -> None:
        second.close_dead_runs()
        look(shared, second)

    assert count_writes(shared, tracker, options, Writes(look=drive)) > 20


def damage(tracker: MlflowTracker, statement: str) -> None:
    with closing(sqlite3.connect(str(tracker.store.database))) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param(
            ["DELETE FROM params", "DELETE FROM tags WHERE key = 'params'"],
            marks=pytest.mark.slow,
            id="created by an earlier version",
        ),
        pytest.param(["DELETE FROM params"], marks=pytest.mark.slow, id="params were deleted"),
        *(
            pytest.param([statement], id=name, marks=pytest.mark.slow)
            for name, statement in {
                "no status": "DELETE FROM tags WHERE key = 'status'",
                "no owner": "DELETE FROM tags WHERE key = 'process' OR key = 'mlflow.parentRunId'",
                "fewer tags": "DELETE FROM tags WHERE key IN ('status_detail', 'overrides', 'title', 'experiment')",
                "an unknown status": "UPDATE tags SET value = 'green' WHERE key = 'status'",
            }.items()
        ),
        pytest.param(
            ["DELETE FROM tags WHERE key = 'status'", "UPDATE runs SET status = 'KILLED'", "DELETE FROM params"],
            id="half a copy",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_store_that_is_damaged_today_gives_a_table_again(
    statements: list[str], shared: Plan, other: Plan, tracker: MlflowTracker, options: RunOptions
) -> None:
    play(other, tracker, options)
    play(shared, tracker, options)
    for statement in statements:
        damage(tracker, statement)
    require_complete(shared, tracker, options)
