"""One call of `harness run` in the store: a parent run and its child runs.

Any number of calls, on any number of machines, may share a store: each run is claimed before it starts, and only the
call that holds the claim trains it. Only this process writes to the store; the processes of runs report to it.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.attestation import get_digests
from harness.checkpoint import locate_checkpoints
from harness.engines.engine import Died, Job, JobResult, Message, Returned, Started, Stopped
from harness.engines.engine import Event as EngineEvent
from harness.errors import StoreError
from harness.execution.context import RunContext, execute_cell
from harness.execution.events import EpochEnded, Event, RunEnded, RunResumed, RunStarted, TrainedElsewhere
from harness.execution.ledger import Entry, find_checkpoint, read_ledger
from harness.execution.open_run import (
    Kept,
    Opened,
    OpenRun,
    Raised,
    Resumed,
    RunMessage,
    Traced,
    Warned,
    classify_signal,
)
from harness.execution.rehearsals import Rehearser
from harness.execution.setup import Setup
from harness.files import temporary_folder
from harness.plan import Plan, PlannedRun
from harness.processes import name_signal
from harness.record import EpochMetrics, Record, RunStatus
from harness.trace import find_place
from harness.tracking import locked

SECONDS_BETWEEN_LOOKS = 2.0
"""At runs that other calls train."""

ROWS_TO_PAUSE = 3
"""Rows that fail by the same exception before a plan is paused."""

logger = logging.getLogger(__name__)


@dataclass
class _Share:
    """What this call has of a run in the store.

    Attributes:
        claim: the id of its claim.
        logged: the epochs that the store has.
        earlier: how its last attempt ended, of a run that was reopened.
    """

    claim: str
    logged: set[int] = field(default_factory=set)
    earlier: Record | None = None


@dataclass
class Invocation:
    """Trains runs through an engine and sees to it that each one ends in the store.

    Attributes:
        command: what the user typed.
        rehearser: has the rehearsals of the runs' cells.
        tests: whether its runs are measured on the test set.
        is_to_do: whether a run has still to be trained; another call may have done it.
        records: of the runs that have ended here.
    """

    setup: Setup
    command: str
    rehearser: Rehearser
    tests: bool = True
    is_to_do: Callable[[Entry], bool] = lambda entry: not entry.standing.has_result
    records: list[Record] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._open: dict[str, OpenRun] = {}
        self._shares: dict[str, _Share] = {}
        self._postponed: list[PlannedRun] = []
        self._waiting: list[Event] = []
        self._results: dict[str, JobResult] = {}
        self._stopped: dict[str, str] = {}
        self._failing: dict[str, set[str]] = {}
        self._is_paused = False
        self._finished = False
        self.spec, self.tracker, self.engine = self.setup.spec, self.setup.tracker, self.setup.engine
        self._id = self.tracker.start_invocation(self.spec, command=self.command, provenance=self.setup.provenance)

    def copy(self, entries: Iterable[Entry]) -> None:
        """Show in this experiment what another one has trained."""
        entries = list(entries)
        if not entries:
            return
        with locked(self.tracker, f"copies in {self.spec.name}"):
            for entry in entries:
                assert entry.record is not None
                self.tracker.copy_run(entry.record, entry.run, spec=self.spec, parent_id=self._id)

    def refuse(self, runs: Iterable[PlannedRun]) -> Generator[Event, None, None]:
        """End runs whose rehearsal has failed as it did: to train them would only find the same bug later."""
        for run in runs:
            rehearsal, name = self.rehearser.known[run.row.cell.id], self._claim(run)
            if name is not None:
                detail = f"in rehearsal: {rehearsal.detail}"
                yield RunEnded(run, self._end(name, rehearsal.status, detail, rehearsal.output))

    def train(self, runs: Iterable[PlannedRun]) -> Generator[Event, None, None]:
        """Execute runs in their order, each taken when there is room; whatever happens to one, the others go on.

        What another call trains is waited for, and taken over where that call ends without its outcome. Where several
        rows have failed by the same exception, no further run is started.

        When this is broken off, outcomes that have arrived by then are taken.
        """
        try:
            yield from self._execute(runs)
            announced: list[PlannedRun] = []
            while self._postponed:
                postponed, self._postponed = self._postponed, []
                yield from self._execute(postponed)
                if self._postponed and self._postponed != announced:
                    announced = self._postponed
                    yield TrainedElsewhere(tuple(announced))
                if self._postponed:
                    time.sleep(SECONDS_BETWEEN_LOOKS)
        except KeyboardInterrupt:
            yield from self._handle_rest()
            yield from self._end_open()
            raise
        finally:
            for _ in self._handle_rest():
                pass

    def look_up(self, run: PlannedRun) -> Entry:
        """What the store has of a run at this moment."""
        plan = Plan(self.spec, (run.row,), (run,))
        return read_ledger(plan, self.tracker, self.setup.digests, tests=self.tests)[0]

    def stop(self, run: PlannedRun, reason: str) -> None:
        """End a run that is open as interrupted, for `reason`."""
        name = next(name for name, open_run in self._open.items() if open_run.run == run)
        self._stopped[name] = reason
        self.engine.stop(name)

    def finish(self, files: tuple[Path, ...], description: str) -> None:
        """Close the parent run; both are the table's."""
        failed = any(record.status == RunStatus.FAILED for record in self.records)
        self._finish(RunStatus.FAILED if failed else RunStatus.OK, files, description)

    def close(self) -> None:
        """End what is still open: nothing, unless the invocation itself is broken off.

        A run whose outcome has arrived gets it. The others are interrupted.
        """
        if not self._finished:
            self.tracker.shorten_timeouts()
        try:
            for _ in self._end_open():
                pass
            if not self._finished:
                self._finish(RunStatus.INTERRUPTED)
        except StoreError as error:
            logger.warning("%s; the next `harness run` closes the runs that are still open in it", error)

    def _execute(self, runs: Iterable[PlannedRun]) -> Generator[Event, None, None]:
        with closing(self.engine.execute(self._open_jobs(runs))) as events:
            for event in events:
                yield from self._take_waiting()
                yield from self._handle_event(event)
        yield from self._take_waiting()

    def _take_waiting(self) -> Iterator[Event]:
        while self._waiting:
            yield self._waiting.pop(0)

    def _end_open(self) -> Iterator[RunEnded]:
        for name, open_run in list(self._open.items()):
            if name in self._results:
                yield from self._finish_run(self._results[name])
            else:
                yield RunEnded(open_run.run, self._end(name, RunStatus.INTERRUPTED))

    def _finish(self, status: RunStatus, files: tuple[Path, ...] = (), description: str = "") -> None:
        statuses = [record.status for record in self.records]
        counts = {status: statuses.count(status) for status in dict.fromkeys(statuses)}
        self.tracker.finish_invocation(self._id, status, counts=counts, files=files, description=description)
        self._finished = True

    def _open_jobs(self, runs: Iterable[PlannedRun]) -> Iterator[Job]:
        for run in runs:
            name = self._claim(run)
            if name is not None:
                yield self._make_job(name)
            if self._is_paused:
                return

    def _claim(self, run: PlannedRun) -> str | None:
        """The id of a run that is open in the store from now on; None where another call has it, or has done it."""
        claim = self.tracker.claim(f"{run.row.cell.id} seed {run.seed}")
        if claim is None:
            self._postponed.append(run)
            return None
        try:
            return self._open_run(run, claim)
        except BaseException:  # this process may go on, in a notebook
            self.tracker.release(claim)
            raise

    def _open_run(self, run: PlannedRun, claim: str) -> str | None:
        """As `_claim`, with the claim of the run."""
        self.tracker.close_open(run.row.cell.id, run.seed)
        entry = self.look_up(run)
        if not self.is_to_do(entry):
            self.tracker.release(claim)
            assert entry.record is not None
            self.copy([entry])
            self._waiting.append(RunEnded(run, replace(entry.record, row=run.row.name), is_elsewhere=True))
            return None
        share, provenance = _Share(claim), self._make_context(run).provenance
        run_id = self._reopen(run, entry.record, share) or self._start(run, provenance)
        known = provenance if share.earlier is None else share.earlier.provenance  # until its process tells more
        self._open[run_id] = OpenRun(run, self.spec.recipe.limits, known, run_id)
        self._shares[run_id] = share
        return run_id

    def _start(self, run: PlannedRun, provenance: Mapping[str, str]) -> str:
        return self.tracker.start_run(run, spec=self.spec, parent_id=self._id, provenance=provenance)

    def _reopen(self, run: PlannedRun, newest: Record | None, share: _Share) -> str | None:
        """The id of the run's last attempt, if that was interrupted under today's code and is of this experiment."""
        if newest is None or newest.status != RunStatus.INTERRUPTED or newest.run_id is None:
            return None
        if get_digests(newest) != self.setup.digests[run.row.cell.id]:
            return None
        logged = self.tracker.resume_run(newest.run_id, spec=self.spec, parent_id=self._id)
        if logged is None:
            return None
        share.logged, share.earlier = set(logged), newest
        return newest.run_id

    def _make_job(self, name: str) -> Job:
        run = self._open[name].run
        job = self.setup.make_job(name, execute_cell, run, self._make_context(run, name))
        if job.time_limit_seconds is None:
            return job
        cell_id = run.row.cell.id
        checkpoint = find_checkpoint(self.tracker.checkpoints, cell_id, run.seed, self.setup.digests[cell_id])
        if checkpoint is None:
            return job
        return replace(job, time_limit_seconds=max(0.0, job.time_limit_seconds - checkpoint.seconds))

    def _make_context(self, run: PlannedRun, run_id: str = "") -> RunContext:
        rehearsal = self.rehearser.known.get(run.row.cell.id)
        return self.setup.make_context(run, run_id=run_id, tests=self.tests, rehearsal=rehearsal)

    def _handle_event(self, event: EngineEvent) -> Iterator[Event]:
        run = self._open[event.name].run
        match event:
            case Started():
                self._open[event.name].restart()
                yield RunStarted(run)
            case Message():
                yield from self._handle_message(event.name, event.payload)
            case _:
                yield from self._finish_run(event)

    def _handle_message(self, name: str, message: RunMessage) -> Iterator[Event]:
        open_run, share = self._open[name], self._shares[name]
        open_run.add(message)
        if not self.tracker.holds(share.claim, at_once=False):
            return  # another call goes on with it; the outcome finds that out
        match message:
            case Opened():
                self._note_place(name, message)
            case Resumed():
                for epoch in message.checkpoint.curve:
                    self._log_epoch(name, epoch)
                yield RunResumed(open_run.run, message)
            case EpochMetrics():
                self._log_epoch(name, message)
                yield EpochEnded(open_run.run, message)
            case Kept():
                with temporary_folder() as folder:
                    path = folder / message.name
                    path.write_bytes(message.content)
                    self.tracker.log_file(_get_id(open_run), path)
            case Raised():
                self.tracker.log_text(_get_id(open_run), message.output, "error.txt")
            case Warned():
                logger.warning("%s seed %s: %s", open_run.run.row.name, open_run.run.seed, message.text)
            case Traced():
                self.rehearser.keep(open_run.run, message.rehearsal)

    def _note_place(self, name: str, opened: Opened) -> None:
        """Epochs that were trained elsewhere and cannot go on here stay as they are, and this is a run of its own."""
        open_run, share = self._open[name], self._shares[name]
        earlier, here = share.earlier, find_place(opened.provenance)
        is_lost = bool(share.logged) and not opened.continues
        if earlier is not None and is_lost and find_place(earlier.provenance) != here:
            self.tracker.finish_run(_get_id(open_run), earlier)
            open_run.run_id, share.logged = self._start(open_run.run, opened.provenance), set()
        self.tracker.log_place(_get_id(open_run), opened.provenance, opened.process)

    def _log_epoch(self, name: str, epoch: EpochMetrics) -> None:
        logged = self._shares[name].logged
        if epoch.epoch not in logged:
            self.tracker.log_epoch(_get_id(self._open[name]), epoch)
            logged.add(epoch.epoch)

    def _handle_rest(self) -> Iterator[Event]:
        """What had arrived when the engine was closed: an interruption loses no outcome."""
        for event in self.engine.take_rest():
            if event.name in self._open:
                yield from self._handle_event(event)

    def _finish_run(self, result: JobResult) -> Iterator[RunEnded]:
        """End a run as its process did; where this is broken off, `close` does it again."""
        name = result.name
        self._results[name] = result
        open_run = self._open[name]
        if not self.tracker.holds(self._shares[name].claim):
            self._forget(name)
            self._postponed.append(open_run.run)  # another call has taken it over
            return
        match result:
            case Returned():
                record = self._store(name, replace(result.value, run_id=open_run.run_id))
            case Died():
                if result.exit_code < 0:
                    open_run.origin = f"signal {-result.exit_code}"
                record = self._end(name, _classify(result), _describe_death(result), result.output)
            case Stopped():
                record = self._end(name, RunStatus.INTERRUPTED, self._stopped[name])
                locate_checkpoints(self.tracker.checkpoints, record.cell_id, record.seed).remove()  # nobody wants it
            case _:
                record = self._end(name, RunStatus.TIMED_OUT)
        if record.status == RunStatus.FAILED:
            self._note_failure(record, open_run.origin)
        yield RunEnded(open_run.run, record)

    def _note_failure(self, record: Record, origin: str) -> None:
        """Pause where it is the same bug again: every further run would only find it later."""
        rows = self._failing.setdefault(origin, set())
        rows.add(record.row)
        if origin and len(rows) >= ROWS_TO_PAUSE and not self._is_paused:
            self._is_paused = True
            logger.warning(
                "%s failed by the same exception, so no further run is started: %s",
                ", ".join(sorted(rows)),
                record.status_detail,
            )

    def _end(self, name: str, status: RunStatus, detail: str = "", output: str = "") -> Record:
        """Close a run whose process has no outcome of its own."""
        open_run = self._open[name]
        if output:
            self.tracker.log_text(_get_id(open_run), output, "output.txt")
        return self._store(name, open_run.to_record(status, detail))

    def _store(self, name: str, record: Record) -> Record:
        """Write an outcome; nothing is left to do for its run."""
        self.tracker.finish_run(_get_id(self._open[name]), record)
        if record.status == RunStatus.OK:
            self._clear_checkpoints(record)
        self._forget(name)
        self.records.append(record)
        return record

    def _clear_checkpoints(self, record: Record) -> None:
        folder = locate_checkpoints(self.tracker.checkpoints, record.cell_id, record.seed)
        if not self.spec.recipe.keep_checkpoint:
            folder.remove()
            return
        assert record.run_id is not None
        try:
            folder.retire(record.run_id)
        except OSError as error:
            logger.warning("the checkpoints in %s cannot be kept: %s", folder.path, error.strerror)

    def _forget(self, name: str) -> None:
        self.tracker.release(self._shares[name].claim)
        del self._open[name], self._shares[name]


def _get_id(open_run: OpenRun) -> str:
    assert open_run.run_id is not None
    return open_run.run_id


def _classify(died: Died) -> RunStatus:
    if died.exit_code < 0:
        return classify_signal(-died.exit_code, is_out_of_memory=died.is_out_of_memory)
    return RunStatus.OUT_OF_MEMORY if died.is_out_of_memory else RunStatus.FAILED


def _describe_death(died: Died) -> str:
    if died.exit_code < 0:
        return name_signal(-died.exit_code)
    last = died.output.strip().splitlines()[-1:]
    return f"exit code {died.exit_code}: {''.join(last)}"
