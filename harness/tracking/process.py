"""Identifies the process of a run, to find out later whether it still exists."""

import socket
from dataclasses import dataclass

import psutil

CLOCK_TOLERANCE = 2.0
"""Seconds by which a process's start may seem to move when the host's clock is corrected."""


@dataclass(frozen=True)
class ProcessIdentity:
    """A process on some host; ids are given again, so that its start (seconds since the epoch) belongs to it."""

    host: str
    pid: int
    started: float

    @classmethod
    def current(cls) -> "ProcessIdentity":
        """This process."""
        process = psutil.Process()
        return cls(socket.gethostname(), process.pid, process.create_time())

    @property
    def is_here(self) -> bool:
        """Whether it belongs to this host; nothing can be said about processes of others."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether this host still runs it: the same id, started at the same time, and not merely unreaped."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < CLOCK_TOLERANCE
            return same and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, ValueError, OverflowError):  # the last two: no number of a process
            return False

    @property
    def is_gone(self) -> bool:
        """Whether it is known to have ended; of what nobody has written down nothing goes on either."""
        return self == UNKNOWN or (self.is_here and not self.is_alive)


UNKNOWN = ProcessIdentity("", 0, 0.0)
"""The process of a run whose tags do not name it."""
