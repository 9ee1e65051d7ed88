"""The process of one job: leads a process group, reports through a pipe, ends with its caller."""

import multiprocessing
import os
import resource
import signal
import socket
import threading
from enum import Enum, auto
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

from harness.engines.engine import Job, Place
from harness.engines.imports import Imports
from harness.errors import EngineError
from harness.processes import create_group, end_with_parent, signal_group


class Part(Enum):
    """What a worker sends, as pairs of a part and a payload."""

    MESSAGE = auto()
    CHECKED = auto()
    """The code that was imported is the caller's; the payload is the server's process id."""
    REFUSED = auto()
    """It is not, or not known; the payload is the error."""
    VALUE = auto()
    ENDED = auto()
    """The function has returned or raised; what is left of the process may be killed."""


def get_place() -> Place:
    """The place of the job that this process executes; in any other process this host, with one core and no GPUs."""
    return _places[-1] if _places else Place(socket.gethostname())


_places: list[Place] = []


def work(
    sender: connection.Connection,
    job: Job,
    place: Place,
    output: Path,
    imports: Imports,
    checked_servers: frozenset[int],
) -> None:
    """Call the function; an exception ends the process by itself, with its traceback in `output`.

    The first workers of a server make sure that it has imported the code of `imports`. Edits after that change nothing.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the server ignores it
    create_group()
    _redirect_output(output)
    _release_server()
    end_with_parent()
    threading.Thread(target=_watch_caller, daemon=True).start()
    server = os.getppid()
    if server not in checked_servers:
        try:
            imports.check()
        except EngineError as error:
            sender.send((Part.REFUSED, error))
            return
        sender.send((Part.CHECKED, server))
    _places.append(place)
    if place.devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(place.devices)  # nothing in this process has used CUDA yet
    if job.memory_limit_gb is not None:
        _limit_memory(job.memory_limit_gb)
    try:
        value = job.function(lambda payload: sender.send((Part.MESSAGE, payload)), *job.args)
        sender.send((Part.VALUE, value))
    finally:
        sender.send((Part.ENDED, None))


def _redirect_output(path: Path) -> None:
    """Everything that the process writes goes to a file, what C code writes included: the terminal is the parent's."""
    path.parent.mkdir(parents=True, exist_ok=True)  # a cleaner of temporary folders may have been here
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _release_server() -> None:
    """Close this process's end of the pipe that keeps the server: it shall end with the process that started it."""
    server: Any = forkserver._forkserver  # multiprocessing has no public way
    os.close(server._forkserver_alive_fd)
    server._forkserver_alive_fd = None


def _watch_caller() -> None:
    """Kill the group when the process that started the engine has ended; where the kernel does not watch the parent."""
    caller = multiprocessing.parent_process()
    assert caller is not None
    caller.join()
    signal_group(os.getpid(), signal.SIGKILL)


def _limit_memory(gigabytes: float) -> None:
    """Make allocations fail in this process beyond what it has now plus `gigabytes`."""
    status = Path("/proc/self/status").read_text()
    used = int(status.split("VmData:")[1].split()[0]) * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + int(gigabytes * 1e9), hard))
