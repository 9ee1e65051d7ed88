"""The worker processes that decode images; a killed worker ends the run and reports the signal."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection
from multiprocessing.context import ForkContext, ForkProcess
from typing import cast

from harness.errors import LoaderKilled, StoreError
from harness.processes import name_signal


class LoadingProcess(ForkProcess):
    """One of them; `was_ended` where torch has ended it itself, as it does with those that are no longer needed."""

    was_ended = False

    def start(self) -> None:
        """Start it and remember it."""
        super().start()
        _started[:] = [*(process for process in _started if process.exitcode != 0), self]

    def terminate(self) -> None:
        """End the process intentionally; it ignores SIGTERM."""
        self.was_ended = True
        self.kill()


class LoadingContext(ForkContext):
    """A way to start processes for torch's loader.

    A run's own way is a fork server: each process would import torch and timm in every epoch.
    """

    Process = LoadingProcess


_started: list[LoadingProcess] = []

SECONDS_TO_END = 5.0
"""How long a process whose connection broke may take to be gone."""


@contextmanager
def watching_loaders() -> Iterator[None]:
    """Raise what has killed a loading process in place of what torch, or a store that torch has interrupted, says.

    Torch raises its error wherever the process of the run is at that moment.

    Raises:
        LoaderKilled: a loading process was killed.
    """
    _started.clear()
    try:
        yield
    except (RuntimeError, StoreError, OSError, EOFError) as error:
        if isinstance(error, ConnectionError | EOFError):  # heard before the system reports the end of the process
            _wait_for_exit()
        number = _find_signal()
        if number is None:
            raise
        advice = "; shared memory may be full (df /dev/shm)" if number == signal.SIGBUS else ""
        raise LoaderKilled(f"a process that loads images was {name_signal(number)}{advice}", number) from error


def _wait_for_exit() -> None:
    """Wait until a process that still runs has ended, and take its exit code; where none runs there is no wait."""
    running = {process.sentinel: process for process in _started if process.exitcode is None}
    with suppress(RuntimeError):  # torch's, which a signal raises wherever we are: then the process has ended
        for sentinel in connection.wait(running, timeout=SECONDS_TO_END) if running else ():
            running[cast("int", sentinel)].join()  # a sentinel is ready a moment before the exit code is


def _find_signal() -> int | None:
    codes = (process.exitcode for process in _started if not process.was_ended)
    return next((-code for code in codes if code is not None and code < 0), None)
