"""Process groups that end as a whole, and children that end with their parent."""

import ctypes
import os
import signal
import sys
from contextlib import suppress

import psutil

PR_SET_PDEATHSIG = 1  # linux/prctl.h


CRASHES = frozenset({"SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP"})
"""Signals that the kernel, or the process itself, sends because of what its code does."""


def is_crash(number: int) -> bool:
    """Whether a signal says that code is wrong; any other is somebody's interruption."""
    return any(known == number and known.name in CRASHES for known in signal.Signals)


def name_signal(number: int) -> str:
    """How a signal has ended a process, for people; some signals have no name."""
    name = next((f" ({known.name})" for known in signal.Signals if known == number), "")
    return f"killed by signal {number}{name}"


def create_group() -> None:
    """Give this process a session and a process group of its own, which all that it starts belongs to."""
    os.setsid()


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, whatever it does then; on Linux alone.

    A parent that has ended before this call is not noticed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def list_descendants(pid: int) -> list[psutil.Process]:
    """Everything that a process has started and that is still there, in other groups too."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def signal_group(leader: int, number: signal.Signals) -> None:
    """Send a signal to a whole group; to the process alone where it does not lead one yet."""
    for send in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            send(leader, number)
            return
