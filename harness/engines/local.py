"""Processes of this machine, forked from a server that has the slow imports behind it."""

import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from multiprocessing import connection, forkserver, resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from harness.engines.engine import Died, Event, Message, Outcome, Returned, Started, Stopped, Task, TimedOut

GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL
OUTPUT_BYTES = 20_000


class LocalEngine:
    """`workers` processes at once, one a task, each with one thread: numbers depend neither on cores nor on `workers`.

    The first engine of a process starts the server, with `preload` imported and the thread environment set: a worker
    then needs no imports. The server makes no tensor, opens no store and touches no GPU, so that forking it is safe.
    """

    def __init__(self, *, workers: int, preload: Sequence[str] = ()) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.workers = workers
        self.threads = 1
        self._unwanted: set[str] = set()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))
        resource_tracker.ensure_running()  # it unblocks interrupts at its start
        with _environment(_worker_environment(self.threads)), _interrupts_blocked():
            forkserver.ensure_running()

    def execute(self, tasks: Iterable[Task]) -> Generator[Event, None, None]:
        """Yield events as they happen; closing the iterator kills what still runs."""
        waiting = iter(tasks)
        running: list[_Worker] = []
        with TemporaryDirectory(prefix="harness-") as folder:
            try:
                while True:
                    for task in islice(waiting, self.workers - len(running)):
                        with _interrupts_blocked(), _script_hidden():
                            running.append(_Worker(self._context, task, Path(folder)))
                        yield Started(task.name, running[-1].pid)
                    if not running:
                        return
                    _kill(self._stop_unwanted(running))
                    _wait(running)
                    for worker in list(running):
                        yield from worker.take_messages()
                        if worker.is_over():
                            running.remove(worker)
                            yield worker.outcome()
            finally:
                _kill(running)

    def stop(self, name: str) -> None:
        """Kill one task that runs, when the iterator is asked for its next event."""
        self._unwanted.add(name)

    def _stop_unwanted(self, running: Sequence["_Worker"]) -> list["_Worker"]:
        """The workers whose task is to be stopped, marked as such."""
        unwanted = [worker for worker in running if worker.task.name in self._unwanted]
        for worker in unwanted:
            worker.is_unwanted = True
        self._unwanted.clear()
        return unwanted


class _Worker:
    """One task and its process, seen from the parent."""

    def __init__(self, context: multiprocessing.context.ForkServerContext, task: Task, folder: Path) -> None:
        self.task = task
        self._output = folder / f"{time.monotonic_ns()}.txt"
        self.receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(sender, task, self._output), daemon=False)
        self.process.start()
        sender.close()
        limit = task.time_limit_seconds
        self.deadline = float("inf") if limit is None else time.monotonic() + limit
        self.is_unwanted = False
        self._value: list[object] = []
        self._late = False

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def take_messages(self) -> Iterator[Message]:
        """What arrived since the last call, in order."""
        while not self.receiver.closed and self.receiver.poll():
            try:
                is_value, payload = self.receiver.recv()
            except (EOFError, OSError):
                self.receiver.close()
            else:
                if is_value:
                    self._value.append(payload)
                else:
                    yield Message(self.task.name, payload)

    def is_over(self) -> bool:
        """Whether the process has ended and all it sent was taken; kills it at its deadline."""
        if self.process.is_alive() and time.monotonic() >= self.deadline:
            self._late = True
            _kill([self])
        return not self.process.is_alive() and (self.receiver.closed or not self.receiver.poll())

    def outcome(self) -> Outcome:
        """How the task ended; a value that arrived stands, whatever happened after it."""
        self.process.join()
        self.receiver.close()
        output = _read_end(self._output)
        if self._value:
            return Returned(self.task.name, self._value[0], output)
        if self._late:
            return TimedOut(self.task.name, output)
        if self.is_unwanted:
            return Stopped(self.task.name, output)
        return Died(self.task.name, self.process.exitcode or 0, output)


def _wait(running: Sequence[_Worker]) -> None:
    """Sleep until a worker sent something, ended, or reached its deadline."""
    sources: list[object] = [worker.process.sentinel for worker in running]
    sources += [worker.receiver for worker in running if not worker.receiver.closed]
    remaining = min(worker.deadline for worker in running) - time.monotonic()
    connection.wait(sources, timeout=None if remaining == float("inf") else max(0.0, remaining))  # type: ignore[arg-type]


def _kill(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    patience = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        worker.process.join(max(0.0, patience - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _read_end(path: Path) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - OUTPUT_BYTES))
        return file.read().decode(errors="replace")


def _work(sender: connection.Connection, task: Task, output: Path) -> None:
    """In the worker: call the function; an exception ends the process by itself, with its traceback in `output`."""
    _redirect_output(output)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if task.memory_limit_gb is not None:
        _limit_memory(task.memory_limit_gb)
    value = task.function(lambda payload: sender.send((False, payload)), *task.args)
    sender.send((True, value))


def _redirect_output(path: Path) -> None:
    """Everything that the process writes goes to a file, what C code writes included: the terminal is the parent's."""
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _die_with_parent() -> None:
    """Wait for the end of the process that started the engine; the fork server would outlive it with its children."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def _limit_memory(gigabytes: float) -> None:
    """Make allocations fail in this process beyond what it has now plus `gigabytes`."""
    status = Path("/proc/self/status").read_text()
    used = int(status.split("VmData:")[1].split()[0]) * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + int(gigabytes * 1e9), hard))


def _worker_environment(threads: int) -> dict[str, str]:
    """What a worker must find when it starts.

    Two processes with two threads each on two cores collapse: a waiting thread must not spin. And glibc gives large
    blocks back to the system and takes them again page by page, in every step, unless it is told to keep them.
    """
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "passive",
        "MALLOC_MMAP_THRESHOLD_": str(2**30),
        "MALLOC_TRIM_THRESHOLD_": str(2**32),
    }


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Ctrl-C reaches this process alone: the server, and with it every worker, inherits the blocked signal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _script_hidden() -> Iterator[None]:
    """A worker would execute the user's script once more, as far as to the call that has started it."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
