"""The progress display of `harness run`: live on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from harness.attestation import Standing
from harness.commands.view import open_view
from harness.execution import (
    Adopted,
    EpochEnded,
    Event,
    Forecast,
    Looked,
    Planned,
    RehearsalEnded,
    Rehearsing,
    RunEnded,
    RunResumed,
    RunStarted,
    TableWritten,
    TrainedElsewhere,
)
from harness.execution.ledger import Entry
from harness.measure import Measure
from harness.plan import PlannedRun
from harness.record import EpochMetrics, Record, RunStatus
from harness.table.reason import describe_outcome, explain
from harness.tasks import DEFAULT_MEASURE
from harness.text import count_noun, escape_terminal

Show = Callable[[Event], None]


def open_progress(stream: TextIO, measure: Measure = DEFAULT_MEASURE) -> AbstractContextManager[Show]:
    """See `open_view`; `measure` is shown for every epoch and run."""
    plain = _PlainProgress(measure)
    return open_view(stream, describe=plain.describe, live=lambda console: _LiveProgress(console, measure))


@dataclass
class Tally:
    """The progress of a plan.

    Attributes:
        total: number of runs of the plan.
        done: number of runs that need not be trained or ended with a result.
        failed: number of runs that ended with a bug.
        interrupted: number of runs that were interrupted.
    """

    total: int = 0
    done: int = 0
    failed: list[Record] = field(default_factory=list)
    interrupted: list[Record] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Update the progress with an event."""
        match event:
            case Planned():
                self.total = len(event.entries)
                self.failed = [entry.record for entry in list_left(event) if entry.record is not None]
                self.done = self.total - len(event.to_do) - len(self.failed)
            case RunEnded() if event.record.status == RunStatus.FAILED:
                self.failed.append(event.record)
            case RunEnded() if event.record.status == RunStatus.INTERRUPTED:
                self.interrupted.append(event.record)
            case RunEnded():
                self.done += event.record.status.is_result


def list_left(event: Planned) -> list[Entry]:
    """The entries that failed before and are not trained again."""
    return [entry for entry in event.entries if entry.standing == Standing.FAILED and entry.run not in event.to_do]


def describe_start(event: Planned) -> list[str]:
    """The state of the plan, and the runs that will be trained."""
    stale = [entry.run for entry in event.entries if entry.standing in (Standing.STALE, Standing.UNDECIDED)]
    attested = [entry for entry in event.entries if entry.standing == Standing.ATTESTED]
    unattested = [entry for entry in event.entries if entry.standing == Standing.UNATTESTED]
    left = list_left(event)
    done = len(event.entries) - len(event.to_do) - len(left)
    lines = [f"{count_noun(len(event.entries), 'run')}: {done} done, {len(event.to_do)} to train"]
    if attested:
        lines.append(f"{len(attested)} of them are attested: the code has changed, but computes the same numbers")
    for reason in dict.fromkeys(entry.reason for entry in unattested):
        runs = [entry.run for entry in unattested if entry.reason == reason]
        what = "they are trained again" if runs[0] in event.to_do else "they stand (--retrain trains them again)"
        lines.append(f"{len(runs)} of them cannot be attested, code has changed since: {reason}; {what}")
    if stale:
        what = "they are trained again (--keep-stale keeps them)" if stale[0] in event.to_do else "they are kept"
        lines.append(f"{len(stale)} of them are stale, code or data have changed since: {what}")
    if left:
        lines.append(f"{len(left)} of them failed before and are not trained again (--retry-failed trains them again)")
    if event.closed:
        lines.append(f"closed what an earlier call left open: {count_noun(event.closed, 'run')}")
    lines += [
        f"{_name(run.row, run.seed)} is also being trained by process {run.pid} on {run.host}"
        for run in event.elsewhere
    ]
    return lines


def describe_preparation(event: Adopted | Rehearsing | RehearsalEnded | Forecast) -> list[str]:
    """Describe imports, rehearsals and their reason, failed rehearsals, and the forecast of time and memory."""
    match event:
        case Adopted():
            return [f"{count_noun(event.runs, 'run')} imported from {event.path}"]
        case Rehearsing():
            why = "to check whether runs of older code are valid" if event.decides else "before training"
            return [f"rehearsing {count_noun(len(event.runs), 'cell')} {why}"]
        case RehearsalEnded() if event.rehearsal.status != RunStatus.OK:
            status = event.rehearsal.status.value.replace("_", " ")
            text = ": ".join(part for part in (f"rehearsal {status}", event.rehearsal.detail) if part)
            return [f"{event.run.row.name}: {text}"]
        case Forecast():
            return [f"forecast: {to_clock(event.seconds)} for all runs, up to {event.peak_memory_gb:.1f} GB each"]
        case _:
            return []


def describe_look(event: Looked) -> list[str]:
    """The decisions of a look, and the rows that get more seeds."""
    course, look = event.course, event.course.last
    if look is None:
        return []
    stopped = [f"{name} {item.reason}" for name, item in course.rows.items() if item.look == look and not item.is_open]
    open_rows = [name for name, seeds in course.seeds.items() if seeds > look.seeds]
    what = f"{', '.join(open_rows)} up to {course.seeds[open_rows[0]]} seeds" if open_rows else "no row gets more seeds"
    return ["; ".join([f"look at {look.seeds} seeds", *stopped, what])]


class Punctuality:
    """Compares the duration of the training with its forecast."""

    def __init__(self) -> None:
        self._expected: Forecast | None = None
        self._start = 0.0

    def add(self, event: Event) -> list[str]:
        """Return a line when the table is written, if there was a forecast."""
        match event:
            case Forecast():
                self._expected, self._start = event, time.monotonic()
            case TableWritten() if self._expected is not None:
                took = time.monotonic() - self._start
                error = 100 * (took / self._expected.seconds - 1)
                return [f"took {to_clock(took)}, {abs(error):.0f} % {'more' if error > 0 else 'less'} than forecast"]
        return []


def describe_wait(event: TrainedElsewhere) -> str:
    """What this call waits for, in one line."""
    names = [_name(run.row.name, run.seed) for run in event.runs]
    what = names[0] if len(names) == 1 else f"{names[0]} and {count_noun(len(names) - 1, 'other run')}"
    return f"waiting for other commands on this store, which train {what}"


def describe_end(event: RunEnded, measure: Measure) -> str:
    """The outcome of a run in one line."""
    record = event.record
    name, seconds = _name(record.row, record.seed), record.metrics.get("seconds", 0.0)
    if event.is_elsewhere:
        name += ", trained by another command"
    if record.status != RunStatus.OK:
        return f"{name}: {describe_outcome(record)}, after {to_clock(seconds)}"
    score = f"test {measure.title} {measure.show(record.metrics[measure.test])}"
    doubt = f"; {describe_outcome(record)}" if explain(record) else ""
    return f"{name}: {score}, took {to_clock(seconds)}{doubt}"


def describe_resumption(event: RunResumed) -> str:
    """The place where a run continues, in one line."""
    name, resumed = _name(event.run.row.name, event.run.seed), event.resumed
    return f"{name}: continues {resumed.checkpoint.place}, attempt {resumed.attempts}"


def describe_epoch(epoch: EpochMetrics, measure: Measure) -> str:
    """The measurements of an epoch in one line."""
    metrics = epoch.metrics
    score = measure.show(metrics[measure.val], width=5)
    return f"val {measure.title} {score}, train loss {metrics['train/loss']:.3f}"


def _name(row: str, seed: int) -> str:
    return f"{row} seed {seed}"


def _count_epochs(run: PlannedRun) -> int:
    return run.row.cell.training.total_epochs


def to_clock(seconds: float) -> str:
    """`0:07`, `12:34`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _PlainProgress:
    """The lines of an event, for files and pipes."""

    def __init__(self, measure: Measure = DEFAULT_MEASURE) -> None:
        self._tally, self._measure, self._punctuality = Tally(), measure, Punctuality()

    def describe(self, event: Event) -> list[str]:
        self._tally.add(event)
        match event:
            case Planned():
                return describe_start(event)
            case Adopted() | Rehearsing() | RehearsalEnded() | Forecast():
                self._punctuality.add(event)
                return describe_preparation(event)
            case Looked():
                return describe_look(event)
            case RunResumed() | EpochEnded() | TrainedElsewhere():
                return [self._describe_step(event)]
            case RunEnded():
                count = f"[{self._tally.done + len(self._tally.failed)}/{self._tally.total}]"
                return [f"{count} {describe_end(event, self._measure)}"]
            case _:
                return self._punctuality.add(event)

    def _describe_step(self, event: RunResumed | EpochEnded | TrainedElsewhere) -> str:
        if isinstance(event, TrainedElsewhere):
            return describe_wait(event)
        if isinstance(event, RunResumed):
            return describe_resumption(event)
        name, total = _name(event.run.row.name, event.run.seed), _count_epochs(event.run)
        return f"{name}: epoch {event.epoch.epoch}/{total}, {describe_epoch(event.epoch, self._measure)}"


class TimeLeft(ProgressColumn):
    """The time left by the pace up to the last step, counted down between steps."""

    def render(self, task: Task) -> Text:
        """Compute the pace from the steps done and the `seconds` of the task."""
        if not task.completed or task.total is None:
            return Text("")
        pace = task.fields["seconds"] / task.completed
        return Text(f"{to_clock(max(0.0, pace * task.total - (task.elapsed or 0.0)))} left")


class Bars:
    """Progress bars on a terminal, one per task, with a count, the time left and a text; lines are printed above."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[count]}", markup=False),
            TimeLeft(),
            TextColumn("{task.fields[metrics]}", markup=False),
            console=console,
            refresh_per_second=4,
        )

    def add(self, description: str, epochs: int, count: str) -> TaskID:
        """Open a bar with this number of epochs."""
        return self.progress.add_task(escape_terminal(description), total=epochs, count=count, metrics="", seconds=0.0)

    def advance(self, line: TaskID, epochs: int) -> None:
        """Advance a bar; the time of its last step gives the pace."""
        task = next(task for task in self.progress.tasks if task.id == line)
        self.progress.update(line, advance=epochs, seconds=task.elapsed or 0.0)

    def print(self, *lines: str) -> None:
        """Print lines above the bars."""
        for line in lines:
            self.progress.console.print(escape_terminal(line), markup=False, highlight=False, soft_wrap=True)


class _LiveProgress:
    """A bar for the plan and one for each running cell below it; runs that ended are printed above."""

    def __init__(self, console: Console, measure: Measure = DEFAULT_MEASURE) -> None:
        self._bars, self._measure = Bars(console), measure
        self._progress = self._bars.progress
        self._tally, self._punctuality = Tally(), Punctuality()
        self._lines: dict[tuple[str, int], TaskID] = {}
        self._overall = TaskID(-1)

    def __enter__(self) -> Show:
        self._progress.start()
        return self.show

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        self._tally.add(event)
        self._bars.print(*self._punctuality.add(event))
        match event:
            case Planned():
                self._bars.print(*describe_start(event))
                if self._overall in self._progress.task_ids:  # of an earlier look
                    self._progress.remove_task(self._overall)
                epochs = sum(_count_epochs(run) for run in event.to_do)
                self._overall = self._bars.add("all runs", epochs, self._count_ended())
            case Adopted() | Rehearsing() | RehearsalEnded() | Forecast():
                self._bars.print(*describe_preparation(event))
            case Looked():
                self._bars.print(*describe_look(event))
            case RunStarted():
                key, total = (event.run.row.name, event.run.seed), _count_epochs(event.run)
                if key in self._lines:  # again, on another host
                    self._progress.remove_task(self._lines[key])
                self._lines[key] = self._bars.add(_name(*key), total, f"epoch 0/{total}")
            case RunResumed():
                self._show_resumption(event)
            case EpochEnded():
                self._show_epoch(event)
            case RunEnded():
                self._show_end(event)
            case TrainedElsewhere():
                self._bars.print(describe_wait(event))

    def _show_resumption(self, event: RunResumed) -> None:
        line, done = self._lines[event.run.row.name, event.run.seed], event.resumed.checkpoint.epoch
        self._bars.print(describe_resumption(event))
        self._progress.update(line, count=f"epoch {done}/{_count_epochs(event.run)}")
        self._bars.advance(line, done)
        self._bars.advance(self._overall, done)

    def _show_epoch(self, event: EpochEnded) -> None:
        line = self._lines[event.run.row.name, event.run.seed]
        count = f"epoch {event.epoch.epoch}/{_count_epochs(event.run)}"
        self._progress.update(line, count=count, metrics=describe_epoch(event.epoch, self._measure))
        self._bars.advance(line, 1)
        self._bars.advance(self._overall, 1)

    def _show_end(self, event: RunEnded) -> None:
        line = self._lines.pop((event.run.row.name, event.run.seed), None)
        if line is not None:
            self._progress.remove_task(line)
        self._bars.print(describe_end(event, self._measure))
        self._progress.update(self._overall, count=self._count_ended())
        self._bars.advance(self._overall, _count_epochs(event.run) - len(event.record.curve))

    def _count_ended(self) -> str:
        return f"{self._tally.done + len(self._tally.failed)}/{self._tally.total} runs"
