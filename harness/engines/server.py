"""The fork server's own code; it is the first of the modules that the server preloads.

The server ends when the process that started it has ended, even by SIGKILL. The kernel then kills the workers, but not
what they have started. A worker that holds the interpreter's lock cannot do so either: the server ends their groups.

It ignores SIGTERM, which may be sent to every process at once: workers need their server until their last checkpoint.
It and its workers ignore SIGUSR2, which Slurm sends to every process of a job whose time ends: the engine `slurm` then
asks the worker itself.
"""

import atexit
import os
import signal

import psutil

from harness.processes import signal_group


def _end_jobs(server: int) -> None:
    """Kill the groups of all workers; their copies of the server's memory call this too, and do nothing."""
    if os.getpid() == server:
        for worker in psutil.Process(server).children():
            signal_group(worker.pid, signal.SIGKILL)


atexit.register(_end_jobs, os.getpid())
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
