"""The progress display of `harness search`, and the winner as a row."""

import io
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich.console import Console
from rich.progress import TaskID
from ruamel.yaml import YAML

from harness.commands.progress import Bars, describe_epoch
from harness.commands.view import open_view
from harness.errors import StoreError
from harness.measure import Measure
from harness.record import RunStatus
from harness.search.events import (
    SearchEvent,
    StudyOpened,
    TrialEnded,
    TrialEpochEnded,
    TrialInterrupted,
    TrialStarted,
)
from harness.search.report import describe_values
from harness.search.space import make_space
from harness.search.spec import WINNER, SearchSpec
from harness.search.study import Study
from harness.search.trial import TrialResult, TrialState
from harness.tasks import DEFAULT_MEASURE, find_measure
from harness.text import count_noun

Show = Callable[[SearchEvent], None]


def open_search(stream: TextIO, measure: Measure = DEFAULT_MEASURE) -> AbstractContextManager[Show]:
    """See `open_view`; `measure` is shown for every epoch and trial."""
    plain = _PlainSearch(measure)
    return open_view(stream, describe=plain.describe, live=lambda console: _LiveSearch(console, measure))


@dataclass
class Count:
    """The progress of a search.

    Attributes:
        total: number of trials of the study.
        ended: number of trials that have a result.
        failed: number of trials of this call that ended with a bug.
        interrupted: number of trials of this call that were interrupted.
        best: the best measured trial.
        measure: the measure by which trials are compared.
    """

    total: int = 0
    ended: int = 0
    failed: list[TrialResult] = field(default_factory=list)
    interrupted: int = 0
    best: TrialResult | None = None
    measure: Measure = DEFAULT_MEASURE

    def add(self, event: SearchEvent) -> None:
        """Update the counts with an event."""
        match event:
            case StudyOpened():
                self.total = event.num_trials
                for result in event.ended:
                    self._add_result(result)
            case TrialInterrupted():
                self.interrupted += 1
            case TrialEnded():
                self._add_result(event.result)
                if event.result.status == RunStatus.FAILED:
                    self.failed.append(event.result)

    def _add_result(self, result: TrialResult) -> None:
        self.ended += 1
        if result.state != TrialState.COMPLETE:
            return
        sign = self.measure.sign
        if self.best is None or sign * result.objectives["val"] > sign * self.best.objectives["val"]:
            self.best = result

    def describe(self) -> str:
        """Trials and the best value."""
        count = f"{self.ended}/{self.total} trials"
        if self.best is None:
            return count
        return f"{count}, best {self.measure.show(self.best.objectives['val'])} (trial {self.best.number})"


def describe_opening(event: StudyOpened) -> list[str]:
    """The state of the study, and the trials that follow."""
    left = max(0, event.num_trials - len(event.ended))
    lines = [f"study {event.name!r} in {event.storage}", f"{count_noun(len(event.ended), 'trial')} ended, {left} to go"]
    if event.closed:
        lines.append(f"closed what an earlier call left open: {count_noun(event.closed, 'run')}")
    return lines


def describe_start(event: TrialStarted) -> str:
    """The point of a trial in one line."""
    again = " again" if event.is_resumed else ""
    return f"trial {event.number}{again}: {describe_values(event.values)}"


def describe_result(result: TrialResult, measure: Measure) -> str:
    """The result of a trial in one line."""
    stored = " (stored)" if result.is_reused else ""
    if result.state != TrialState.COMPLETE:
        return f"trial {result.number}: {result.reason}{stored}"
    measured = [f"val {measure.title} {measure.show(result.objectives['val'])}"]
    measured += [f"{name} {value:,.0f}" for name, value in result.objectives.items() if name != "val"]
    return f"trial {result.number}: {', '.join(measured)}{stored}"


def describe_interruption(event: TrialInterrupted) -> str:
    """Why a trial has no result yet."""
    return f"trial {event.number}: interrupted{event.reason and f', {event.reason}'}; the next call continues it"


def write_preset(spec: SearchSpec, storage: str) -> str:
    """The best trial so far as a row of an experiment, in YAML; values of the recipe follow as options.

    Raises:
        StoreError: the study has no measured trial.
    """
    space = make_space(spec)
    best = Study(space, storage).find_best()
    if best is None:
        raise StoreError("the study has no measured trial; run `harness search` first")
    row, _ = space.apply(best.values)
    yaml, text = YAML(), io.StringIO()
    yaml.default_flow_style = True
    yaml.width = 1000
    yaml.dump(_to_yaml(row.model_dump(exclude_unset=True)), text)
    stated = [(parameter, best.values[parameter.name]) for parameter in space.parameters]
    options = [f"{known.field}={value}" for known, value in (*stated, *space.fixed) if not known.is_operator]
    measure = find_measure(spec)
    score = f"validation {measure.title} {measure.show(best.objectives['val'])}"
    lines = [f"# trial {best.number} of study {space.spec.name}: {score}"]
    lines += [f"# under recipe {spec.recipe.name} with --set {' '.join(options)}"] if options else []
    return "\n".join([*lines, f"{WINNER}: {text.getvalue().strip()}"])


def _to_yaml(value: Any) -> Any:
    """Convert tuples to lists."""
    if isinstance(value, Mapping):
        return {key: _to_yaml(item) for key, item in value.items()}
    return [_to_yaml(item) for item in value] if isinstance(value, tuple) else value


class _PlainSearch:
    """The lines of an event, for files and pipes."""

    def __init__(self, measure: Measure = DEFAULT_MEASURE) -> None:
        self._count = Count(measure=measure)

    def describe(self, event: SearchEvent) -> list[str]:
        self._count.add(event)
        match event:
            case StudyOpened():
                return describe_opening(event)
            case TrialStarted():
                return [describe_start(event)]
            case TrialEpochEnded():
                epoch = describe_epoch(event.epoch, self._count.measure)
                return [f"trial {event.number}: epoch {event.epoch.epoch}/{event.epochs}, {epoch}"]
            case TrialEnded():
                return [f"[{self._count.describe()}] {describe_result(event.result, self._count.measure)}"]
            case TrialInterrupted():
                return [describe_interruption(event)]
            case _:
                return []


class _LiveSearch:
    """A bar for the study and one for each running trial below it; trials that ended are printed above."""

    def __init__(self, console: Console, measure: Measure = DEFAULT_MEASURE) -> None:
        self._bars, self._count = Bars(console), Count(measure=measure)
        self._lines: dict[int, tuple[TaskID, int]] = {}
        self._all: TaskID | None = None

    def __enter__(self) -> Show:
        self._bars.progress.start()
        return self.show

    def __exit__(self, *exception: object) -> None:
        self._bars.progress.stop()

    def show(self, event: SearchEvent) -> None:
        self._count.add(event)
        match event:
            case StudyOpened():
                self._bars.print(*describe_opening(event))
            case TrialStarted():
                self._start(event)
            case TrialEpochEnded():
                self._show_epoch(event)
            case TrialEnded():
                self._end(event.result)
            case TrialInterrupted():
                line, _ = self._lines.pop(event.number)
                self._bars.progress.remove_task(line)
                self._bars.print(describe_interruption(event))

    def _start(self, event: TrialStarted) -> None:
        if self._all is None:
            left = self._count.total - self._count.ended
            self._all = self._bars.add("all trials", left * event.epochs, self._count.describe())
        line = self._bars.add(f"trial {event.number}", event.epochs, f"epoch 0/{event.epochs}")
        self._bars.progress.update(line, metrics=describe_values(event.values))
        self._lines[event.number] = line, event.epochs

    def _show_epoch(self, event: TrialEpochEnded) -> None:
        line, epochs = self._lines[event.number]
        count = f"epoch {event.epoch.epoch}/{epochs}"
        self._bars.progress.update(line, count=count, metrics=describe_epoch(event.epoch, self._count.measure))
        self._advance(line, 1)

    def _end(self, result: TrialResult) -> None:
        line, epochs = self._lines.pop(result.number, (None, 0))
        self._bars.print(describe_result(result, self._count.measure))
        if line is None or self._all is None:
            return
        done = next(int(task.completed) for task in self._bars.progress.tasks if task.id == line)
        self._bars.progress.remove_task(line)
        self._bars.progress.update(self._all, count=self._count.describe())
        self._bars.advance(self._all, epochs - done)

    def _advance(self, line: TaskID, epochs: int) -> None:
        assert self._all is not None
        self._bars.advance(line, epochs)
        self._bars.advance(self._all, epochs)
