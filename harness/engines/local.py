"""The engine `local`: processes of this machine, forked from a server that has imported torch."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from itertools import islice
from multiprocessing import connection, forkserver, resource_tracker
from pathlib import Path
from types import ModuleType

import psutil

from harness.engines.engine import Died, Event, Job, JobResult, Message, Returned, Started, Stopped, TimedOut
from harness.engines.imports import Imports, list_import_path
from harness.engines.memory import OutOfMemoryKills
from harness.engines.worker import Part, work
from harness.errors import EngineError
from harness.files import temporary_folder
from harness.processes import list_descendants, signal_group

GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL
OUTPUT_BYTES = 20_000
LOST = 255  # multiprocessing's exit code of a process whose server has died
BAD_ALLOC = "std::bad_alloc"  # the last words of C++ code at a memory limit


class LocalEngine:
    """`workers` processes at once, one a job, each with one thread: numbers depend neither on cores nor on `workers`.

    The first engine of a process starts the server, with `preload` imported and the thread environment set: a worker
    then needs no imports. The server makes no tensor, opens no store and touches no GPU, so that forking it is safe.

    Workers import what this process does, from the same folders; they refuse to execute anything else.
    """

    def __init__(self, *, workers: int, preload: Sequence[str] = ()) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.workers = workers
        self.threads = 1
        self._unwanted: set[str] = set()
        self._rest: list[Event] = []
        self._checked_servers: set[int] = set()
        self._kills = OutOfMemoryKills()
        self._imports = _note_imports()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["harness.engines.server", *preload])
        resource_tracker.ensure_running()  # it unblocks interrupts at its start
        with self._prepared():
            forkserver.ensure_running()

    def execute(self, jobs: Iterable[Job]) -> Generator[Event, None, None]:
        """Yield events as they happen; closing the iterator kills what still runs.

        Raises:
            EngineError: workers cannot be started, or would import other code than this process.
        """
        waiting = iter(jobs)
        running: list[_Worker] = []
        with temporary_folder() as folder:
            try:
                while True:
                    for job in islice(waiting, self.workers - len(running)):
                        running.append(self._start(job, folder))
                        yield Started(job.name, running[-1].pid)
                    if not running:
                        return
                    _end(self._stop_unwanted(running))
                    _wait(running)
                    for worker in list(running):
                        yield from worker.take_messages()
                        if worker.refusal is not None:
                            raise worker.refusal
                        if worker.is_over():
                            result = worker.result(self._kills)
                            running.remove(worker)
                            yield result
            finally:
                _end(running)
                self._rest += [event for worker in running for event in worker.take_rest(self._kills)]

    def _start(self, job: Job, folder: Path) -> "_Worker":
        try:
            with self._prepared(), _script_hidden():
                return _Worker(self._context, job, folder, self._imports, self._checked_servers)
        except (EOFError, ConnectionError) as error:
            raise EngineError("the server that starts workers has ended; its messages are above") from error

    def take_rest(self) -> list[Event]:
        """Return the events that had arrived when `execute` was closed, once."""
        rest, self._rest = self._rest, []
        return rest

    def stop(self, name: str) -> None:
        """Kill one job that runs, when the iterator is asked for its next event."""
        self._unwanted.add(name)

    def _stop_unwanted(self, running: Sequence["_Worker"]) -> list["_Worker"]:
        """The workers whose job is to be stopped, marked as such."""
        unwanted = [worker for worker in running if worker.job.name in self._unwanted]
        for worker in unwanted:
            worker.is_unwanted = True
        self._unwanted.clear()
        return unwanted

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        """Inside, the server may start: with the first engine, and again where it has died."""
        with _environment(_worker_environment(self.threads)), _interrupts_blocked():
            yield


class _Worker:
    """One job and its process, seen from the parent."""

    def __init__(
        self,
        context: multiprocessing.context.ForkServerContext,
        job: Job,
        folder: Path,
        imports: Imports,
        checked_servers: set[int],
    ) -> None:
        self.job = job
        self._checked_servers = checked_servers
        self._output = folder / f"{time.monotonic_ns()}.txt"
        self.receiver, sender = context.Pipe(duplex=False)
        args = (sender, job, self._output, imports, frozenset(checked_servers))
        self.process = context.Process(target=work, args=args, daemon=False)
        self.process.start()
        sender.close()
        limit = job.time_limit_seconds
        self.deadline = float("inf") if limit is None else time.monotonic() + limit
        self.is_unwanted = False
        self.was_killed = False
        self.refusal: EngineError | None = None
        self._is_late = False
        self._is_receiving = False
        self._has_ended = False
        self._value: list[object] = []

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def take_messages(self) -> Iterator[Message]:
        """What arrived since the last call, in order."""
        while not self._is_receiving and not self.receiver.closed and self.receiver.poll():
            self._is_receiving = True  # it stays so where an interrupt leaves half a message in the pipe
            try:
                part, payload = self.receiver.recv()
            except (EOFError, OSError):
                self.receiver.close()
                return
            match part:
                case Part.CHECKED:
                    self._checked_servers.add(payload)
                case Part.REFUSED:
                    self.refusal, self.was_killed = payload, True
                case Part.VALUE:
                    self._value.append(payload)
                case Part.ENDED:
                    self._has_ended = True
                    self.deadline = time.monotonic() + GRACE_SECONDS
            self._is_receiving = False
            if part == Part.MESSAGE:
                yield Message(self.job.name, payload)

    def is_over(self) -> bool:
        """Whether the process has ended and all it sent was taken; kills it at its deadline.

        A process whose function has ended may be kept by a thread or by children that the function has left.
        """
        if self.process.is_alive() and time.monotonic() >= self.deadline:
            self._is_late = not self._has_ended
            _end([self])
        return not self.process.is_alive() and (self.receiver.closed or not self.receiver.poll())

    def result(self, kills: OutOfMemoryKills) -> JobResult:
        """How the job ended; a value that arrived stands, whatever happened after it."""
        signal_group(self.pid, signal.SIGKILL)  # what the job has left behind
        self.receiver.close()
        output = _read_end(self._output)
        if self._value:
            return Returned(self.job.name, self._value[0], output)
        if self._is_late:
            return TimedOut(self.job.name, output)
        if self.is_unwanted:
            return Stopped(self.job.name, output)
        if self._has_ended and self.was_killed:
            return Died(self.job.name, 1, output)  # it had raised, and did not get as far as its exit code
        code = self.process.exitcode or 0
        if code == LOST and not self._has_ended:
            code = -signal.SIGKILL  # the server has died, and the kernel has killed its children
        ran_out = (code == -signal.SIGKILL and kills.claim()) or (code == -signal.SIGABRT and BAD_ALLOC in output)
        return Died(self.job.name, code, output, ran_out)

    def take_rest(self, kills: OutOfMemoryKills) -> list[Event]:
        """The events of a job that was ended by closing, with its result if it had one."""
        messages = list(self.take_messages())
        has_ended = self._value or self._has_ended or not self.was_killed
        return [*messages, self.result(kills)] if has_ended or self._is_late or self.is_unwanted else [*messages]


def _wait(running: Sequence[_Worker]) -> None:
    """Sleep until a worker sent something, ended, or reached its deadline."""
    sources: list[object] = [worker.process.sentinel for worker in running]
    sources += [worker.receiver for worker in running if not worker.receiver.closed]
    remaining = min(worker.deadline for worker in running) - time.monotonic()
    connection.wait(sources, timeout=None if remaining == float("inf") else max(0.0, remaining))  # type: ignore[arg-type]


def _end(workers: Sequence[_Worker]) -> None:
    """Ask, wait, then kill: the processes that have not ended by themselves, and all that they have started."""
    alive = [worker for worker in workers if worker.process.is_alive()]
    descendants = [process for worker in alive for process in list_descendants(worker.pid)]
    for worker in alive:
        worker.was_killed = True
        worker.deadline = float("inf")
        signal_group(worker.pid, signal.SIGTERM)
    patience = time.monotonic() + GRACE_SECONDS
    for worker in alive:
        worker.process.join(max(0.0, patience - time.monotonic()))
        signal_group(worker.pid, signal.SIGKILL)
    for process in descendants:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for worker in alive:
        worker.process.join(GRACE_SECONDS)  # nothing kills a process that waits for a broken disk


def _read_end(path: Path) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - OUTPUT_BYTES))
        return file.read().decode(errors="replace")


def _worker_environment(threads: int) -> dict[str, str]:
    """What a worker must find when it starts.

    Two processes with two threads each on two cores collapse: a waiting thread must not spin. And glibc gives large
    blocks back to the system and takes them again page by page, in every step, unless it is told to keep them. Modules
    are looked for where this process does, and not in the working directory before that.
    """
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "passive",
        "MALLOC_MMAP_THRESHOLD_": str(2**30),
        "MALLOC_TRIM_THRESHOLD_": str(2**32),
        "PYTHONPATH": os.pathsep.join(list_import_path()),
        "PYTHONSAFEPATH": "1",
    }


@cache
def _note_imports() -> Imports:
    """What the first engine of a process has found: the server of that moment serves all later ones."""
    return Imports.here()


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
