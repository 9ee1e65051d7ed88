"""The protocol that every verb follows, and its exit codes."""

import argparse
import os
import sys
from typing import Protocol, TextIO

from harness.text import escape_terminal

INTERRUPTED = 130
PIPE_CLOSED = 141
FAILED = 1


def drop_output() -> None:
    """Send what is printed from now on nowhere: Python would fail again when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def echo(text: str, *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print; whatever names and messages have in them, a terminal only shows it."""
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
        """Say what it takes."""
        ...

    def execute(self, options: argparse.Namespace, /) -> int:
        """Do it and return the exit code; `options.command` is the line as it was typed."""
        ...
