"""One call of `harness run` in the store: a parent run and its child runs."""

import logging
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.checkpoint import locate_checkpoints
from harness.engines.engine import Died, Job, JobResult, Message, Returned, Started, Stopped
from harness.engines.engine import Event as EngineEvent
from harness.errors import StoreError
from harness.execution.context import RunContext, execute_cell
from harness.execution.events import EpochEnded, Event, RunEnded, RunResumed, RunStarted
from harness.execution.ledger import Entry, find_checkpoint
from harness.execution.open_run import OpenRun, Resumed, Traced, Warned, classify_signal
from harness.execution.rehearsals import Rehearser
from harness.execution.setup import Setup
from harness.plan import PlannedRun
from harness.processes import name_signal
from harness.record import EpochMetrics, Record, RunStatus

ROWS_TO_PAUSE = 3
"""Rows that fail by the same exception before a plan is paused."""

logger = logging.getLogger(__name__)


@dataclass
class Invocation:
    """Trains runs through an engine and sees to it that each one ends in the store.

    Attributes:
        command: what the user typed.
        rehearser: has the rehearsals of the runs' cells.
        tests: whether its runs are measured on the test set.
        records: of the runs that have ended.
    """

    setup: Setup
    command: str
    rehearser: Rehearser
    tests: bool = True
    records: list[Record] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._open: dict[str, OpenRun] = {}
        self._results: dict[str, JobResult] = {}
        self._stopped: dict[str, str] = {}
        self._failing: dict[str, set[str]] = {}
        self._is_paused = False
        self._finished = False
        self.spec, self.tracker, self.engine = self.setup.spec, self.setup.tracker, self.setup.engine
        self._id = self.tracker.start_invocation(self.spec, command=self.command, provenance=self.setup.provenance)

    def copy(self, entries: Iterable[Entry]) -> None:
        """Show in this experiment what another one has trained."""
        for entry in entries:
            assert entry.record is not None
            self.tracker.copy_run(entry.record, entry.run, spec=self.spec, parent_id=self._id)

    def refuse(self, runs: Iterable[PlannedRun]) -> Generator[Event, None, None]:
        """End runs whose rehearsal has failed as it did: to train them would only find the same bug later."""
        for run in runs:
            rehearsal, context = self.rehearser.known[run.row.cell.id], self._make_context(run)
            open_run = OpenRun(run, self.spec.recipe.limits, context.provenance)
            record = self._end(open_run, rehearsal.status, f"in rehearsal: {rehearsal.detail}", rehearsal.output)
            self.records.append(record)
            yield RunEnded(run, record)

    def train(self, runs: Iterable[PlannedRun]) -> Generator[Event, None, None]:
        """Execute runs in their order, each taken when there is room; whatever happens to one, the others go on.

        Where several rows have failed by the same exception, no further run is started.

        When this is broken off, outcomes that have arrived by then are taken.
        """
        try:
            with closing(self.engine.execute(self._open_jobs(runs))) as events:
                for event in events:
                    yield from self._handle_event(event)
        except KeyboardInterrupt:
            yield from self._handle_rest()
            yield from self._end_open()
            raise
        finally:
            for _ in self._handle_rest():
                pass

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

        A run whose outcome has arrived gets it. The others are interrupted, unless the store has their outcome already.
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

    def _end_open(self) -> Iterator[RunEnded]:
        for name, open_run in list(self._open.items()):
            if name in self._results:
                yield RunEnded(open_run.run, self._finish_run(self._results[name]))
            elif open_run.run_id is not None:
                record = self._end(open_run, RunStatus.INTERRUPTED)
                self.records.append(record)
                del self._open[name]
                yield RunEnded(open_run.run, record)

    def _finish(self, status: RunStatus, files: tuple[Path, ...] = (), description: str = "") -> None:
        statuses = [record.status for record in self.records]
        counts = {status: statuses.count(status) for status in dict.fromkeys(statuses)}
        self.tracker.finish_invocation(self._id, status, counts=counts, files=files, description=description)
        self._finished = True

    def _open_jobs(self, runs: Iterable[PlannedRun]) -> Iterator[Job]:
        for number, run in enumerate(runs):
            yield self._open_job(str(number), run)
            if self._is_paused:
                return

    def _open_job(self, name: str, run: PlannedRun) -> Job:
        context = self._make_context(run)
        self._open[name] = OpenRun(run, self.spec.recipe.limits, context.provenance)
        job = self.setup.make_job(name, execute_cell, run, context)
        if job.time_limit_seconds is None:
            return job  # a checkpoint is read as a whole to be known
        cell_id = run.row.cell.id
        checkpoint = find_checkpoint(self.tracker.checkpoints, cell_id, run.seed, self.setup.digests[cell_id])
        if checkpoint is None:
            return job
        return replace(job, time_limit_seconds=max(0.0, job.time_limit_seconds - checkpoint.seconds))

    def _make_context(self, run: PlannedRun) -> RunContext:
        rehearsal = self.rehearser.known.get(run.row.cell.id)
        return self.setup.make_context(run, parent_id=self._id, tests=self.tests, rehearsal=rehearsal)

    def _handle_event(self, event: EngineEvent) -> Iterator[Event]:
        run = self._open[event.name].run
        match event:
            case Started():
                yield RunStarted(run)
            case Message():
                self._open[event.name].add(event.payload)
                if isinstance(event.payload, Warned):
                    logger.warning("%s seed %s: %s", run.row.name, run.seed, event.payload.text)
                if isinstance(event.payload, Traced):
                    self.rehearser.keep(run, event.payload.rehearsal)
                if isinstance(event.payload, Resumed):
                    yield RunResumed(run, event.payload)
                if isinstance(event.payload, EpochMetrics):
                    yield EpochEnded(run, event.payload)
            case _:
                yield RunEnded(run, self._finish_run(event))

    def _handle_rest(self) -> Iterator[Event]:
        """What had arrived when the engine was closed: an interruption loses no outcome."""
        for event in self.engine.take_rest():
            if event.name in self._open:
                yield from self._handle_event(event)

    def _finish_run(self, result: JobResult) -> Record:
        """The record of a run that has ended; where this is broken off, `close` does it again."""
        self._results[result.name] = result
        open_run = self._open[result.name]
        match result:
            case Returned():
                record: Record = result.value
            case Died():
                if result.exit_code < 0:
                    open_run.origin = f"signal {-result.exit_code}"
                record = self._end(open_run, _classify(result), _describe_death(result), result.output)
            case Stopped():
                record = self._end(open_run, RunStatus.INTERRUPTED, self._stopped[result.name])
                locate_checkpoints(self.tracker.checkpoints, record.cell_id, record.seed).remove()  # nobody wants it
            case _:
                record = self._end(open_run, RunStatus.TIMED_OUT)
        self.records.append(record)
        del self._open[result.name]
        if record.status == RunStatus.FAILED:
            self._note_failure(record, open_run.origin)
        return record

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

    def _end(self, open_run: OpenRun, status: RunStatus, detail: str = "", output: str = "") -> Record:
        """Close a run whose process can no longer do it, or never got as far as opening it.

        An outcome that the process has written stands: it may have been killed before it could report it.
        """
        if open_run.run_id is None:
            open_run.run_id = self.tracker.start_run(
                open_run.run, spec=self.spec, parent_id=self._id, provenance=open_run.provenance
            )
        elif (written := self.tracker.close_ended(open_run.run_id)) is not None:
            return replace(written, curve=tuple(open_run.curve))
        if output:
            self.tracker.log_text(open_run.run_id, output, "output.txt")
        record = open_run.to_record(status, detail)
        self.tracker.finish_run(open_run.run_id, record)
        return record


def _classify(died: Died) -> RunStatus:
    if died.exit_code < 0:
        return classify_signal(-died.exit_code, is_out_of_memory=died.is_out_of_memory)
    return RunStatus.OUT_OF_MEMORY if died.is_out_of_memory else RunStatus.FAILED


def _describe_death(died: Died) -> str:
    if died.exit_code < 0:
        return name_signal(-died.exit_code)
    last = died.output.strip().splitlines()[-1:]
    return f"exit code {died.exit_code}: {''.join(last)}"
