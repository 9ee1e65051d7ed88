"""The protocol that every verb follows, and its exit codes."""

import argparse
import os
import signal
import sys
from typing import Protocol, TextIO

from harness.text import escape_terminal

INTERRUPTED = 130
PIPE_CLOSED = 141
FAILED = 1


def drop_output() -> None:
    """Redirect stdout to the null device, because Python would fail again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def interrupt_on_sigterm() -> None:
    """Treat SIGTERM like Ctrl-C, so that runs write a checkpoint before they end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def echo(text: str, *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print text; control characters in it are escaped."""
    print(escape_terminal(text), file=file, flush=flush)


class Verb(Protocol):
    """A verb of the command line.

    Attributes:
        HELP: one line in `harness --help`.
        EXAMPLE: a command line that works, in `harness VERB --help`.
    """

    HELP: str
    EXAMPLE: str

    def add_arguments(self, parser: argparse.ArgumentParser, /) -> None:
        """Add the arguments of the verb."""
        ...

    def execute(self, options: argparse.Namespace, /) -> int:
        """Execute the verb and return the exit code; `options.command` is the command line as typed."""
        ...
