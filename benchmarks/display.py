"""The progress display of the benchmark: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks.session import Chosen, Event, Probed
from benchmarks.timing import Turn
from harness.commands.view import open_view
from harness.text import count_noun

Show = Callable[[Event], None]


def open_display(stream: TextIO) -> AbstractContextManager[Show]:
    """See `open_view`."""
    return open_view(stream, describe=_PlainDisplay().describe, live=_open_bar)


@contextmanager
def _open_bar(console: Console) -> Iterator[Show]:
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[count]}", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        yield _LiveDisplay(progress).show


def _to_left(turn: Turn) -> str:
    minutes, seconds = divmod(round(turn.seconds_left), 60)
    return f"about {minutes}:{seconds:02} left"


class _PlainDisplay:
    """A line a case that is tried, a line a round."""

    def __init__(self) -> None:
        self._tried, self._total, self._round = 0, 0, 0

    def describe(self, event: Event) -> list[str]:
        match event:
            case Chosen():
                self._total = len(event.cases)
                cases = count_noun(self._total, "case")
                return [f"{cases}: each runs once in a process of its own, then in rounds"]
            case Probed():
                self._tried += 1
                return [f"[{self._tried}/{self._total}] {event.case_id}: {event.note or 'runs'}"]
            case Turn() if event.round != self._round:
                self._round = event.round
                return [f"round {event.round}: {_to_left(event)}"]
            case _:
                return []


class _LiveDisplay:
    """One bar, first over the cases that are tried, then over the expected seconds of the rounds."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar = TaskID(0)
        self._round = 0

    def show(self, event: Event) -> None:
        match event:
            case Chosen():
                self._bar = self._progress.add_task("trying", total=len(event.cases), count="")
            case Probed():
                self._progress.update(self._bar, advance=1, count=event.case_id)
                if event.note:
                    line = f"{event.case_id}: {event.note}"
                    self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
            case Turn():
                description = f"round {event.round}"
                count = f"{_to_left(event)}, {event.case_id}"
                self._progress.update(
                    self._bar, description=description, total=event.total, completed=event.done, count=count
                )
            case _:
                pass
