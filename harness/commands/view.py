"""The common part of progress displays: live on a terminal, plain lines elsewhere."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TextIO, TypeVar

from rich.console import Console

from harness.text import escape_terminal

Event = TypeVar("Event")


@contextmanager
def open_view(
    stream: TextIO,
    *,
    describe: Callable[[Event], Iterable[str]],
    live: Callable[[Console], AbstractContextManager[Callable[[Event], None]]],
) -> Iterator[Callable[[Event], None]]:
    """Open a display for events on `stream`, and yield the function that shows an event.

    Args:
        stream: a terminal, a file or a pipe.
        describe: the lines of an event, for files and pipes.
        live: opens a display on a terminal and yields the function that shows an event.
    """
    if stream.isatty():
        with live(Console(file=stream)) as show:
            yield show
        return

    def write(event: Event) -> None:
        stream.writelines(f"{escape_terminal(line)}\n" for line in describe(event))
        stream.flush()

    yield write
