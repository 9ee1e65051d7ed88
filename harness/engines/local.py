"""The engine `local`: processes of this machine, forked from a server that has imported torch."""

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from multiprocessing import connection, forkserver, resource_tracker
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import psutil
from pydantic import Field

from harness.engines.capacity import TOLERANCE, Capacity
from harness.engines.engine import (
    THREADS,
    Died,
    Event,
    Job,
    JobResult,
    Message,
    Place,
    Resources,
    Returned,
    Started,
    Stopped,
    TimedOut,
)
from harness.engines.imports import Imports, list_import_path
from harness.engines.memory import OutOfMemoryKills
from harness.engines.options import EngineOptions, Setting
from harness.engines.worker import Part, work
from harness.errors import EngineError
from harness.files import temporary_folder
from harness.processes import list_descendants, signal_group

GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL
OUTPUT_BYTES = 20_000
SECONDS_ASLEEP = 1.0  # at most: Ray's way to interrupt a process does not interrupt what waits
SERVERS_TO_TRY = 5  # of which each has died before it started a worker
LOST = 255  # multiprocessing's exit code of a process whose server has died
BAD_ALLOC = "std::bad_alloc"  # the last words of C++ code at a memory limit


class LocalEngine:
    """`workers` processes at once, one a job, each with one thread: numbers depend neither on cores nor on `workers`.

    The first engine of a process starts the server, with `preload` imported and the thread environment set: a worker
    then needs no imports. The server makes no tensor, opens no store and touches no GPU, so that forking it is safe.

    Workers import what this process does, from the same folders; they refuse to execute anything else.

    Args:
        workers: the maximal number of jobs at once.
        preload: modules that the server imports.
        capacity: what the jobs share; None: one core per worker.
        imports: what workers must import; None: what this process does.
        grace_seconds: how long a job that is ended may write its checkpoint; None: `GRACE_SECONDS`.
    """

    def __init__(
        self,
        *,
        workers: int,
        preload: Sequence[str] = (),
        capacity: Capacity | None = None,
        imports: Imports | None = None,
        grace_seconds: float | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.workers = workers
        self.threads = THREADS
        self._capacity = capacity or Capacity(cpus=workers)
        self._grace = GRACE_SECONDS if grace_seconds is None else grace_seconds
        self._unwanted: set[str] = set()
        self._rest: list[Event] = []
        self._checked_servers: set[int] = set()
        self._kills = OutOfMemoryKills()
        self._imports = imports or _note_imports()
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
        job: Job | None = None
        running: list[_Worker] = []
        with temporary_folder() as folder:
            try:
                while True:
                    while len(running) < self.workers:
                        job = job or next(waiting, None)
                        place = None if job is None else self._capacity.take(job)
                        if job is None or place is None:
                            break
                        running.append(self._start(job, place, folder))
                        job = None
                        yield Started(running[-1].job.name, running[-1].pid)
                    if not running:
                        return
                    _end(self._stop_unwanted(running), self._grace)
                    _wait(running)
                    for worker in list(running):
                        yield from worker.take_messages()
                        if worker.refusal is not None:
                            raise worker.refusal
                        if worker.is_over(self._grace):
                            result = worker.result(self._kills)
                            running.remove(worker)
                            self._capacity.give_back(worker.job.name)
                            yield result
            finally:
                _end(running, self._grace)
                self._capacity.give_back_all()
                self._rest += [event for worker in running for event in worker.take_rest(self._kills)]

    def _start(self, job: Job, place: Place, folder: Path) -> "_Worker":
        """Start a worker; where its server is found to be dead, a new server is started."""
        start = partial(_Worker, self._context, job, place, folder, self._imports, self._checked_servers)
        with self._prepared(), _script_hidden():
            for _ in range(SERVERS_TO_TRY - 1):
                with suppress(EOFError, ConnectionError):
                    return start()
                _await_end_of_server()
            try:
                return start()
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
        with environment(_worker_environment(self.threads)), _interrupts_blocked():
            yield


class LocalOptions(EngineOptions):
    """Options of the engine `local`.

    Attributes:
        cpus: cores of each process of a run; more than one if it loads images in processes of its own.
        gpus: indices of the GPUs that runs may use; None: all.
        gpu_fraction: the share of a GPU of each process of a run: with 0.25, four share one. None: so much that all
            workers have equal shares.
        memory_gb: memory that each process of a run is expected to use: no more runs than fit start at once. None: not
            counted.
    """

    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    gpu_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    memory_gb: Annotated[float, Field(gt=0)] | None = None

    def build(self, setting: Setting) -> "LocalEngine":
        """The engine on this machine."""
        gpus = list_gpus() if self.gpus is None else tuple(map(str, self.gpus))
        asked = setting.workers or self.workers or setting.recipe_workers
        workers = self._count_workers(len(gpus)) if asked == "auto" else asked
        share = Resources(
            cpus=self.cpus,
            gpus=self.gpu_fraction or 1 / math.ceil(workers / len(gpus)) if gpus else None,
            memory_gb=self.memory_gb,
        )
        memory = math.inf if self.memory_gb is None else psutil.virtual_memory().total / 1e9
        cores = max(workers * self.cpus, count_cores())  # a run of several processes may be alone
        capacity = Capacity(cpus=cores, gpus=gpus, memory_gb=memory, share=share)
        return LocalEngine(workers=workers, preload=setting.preload, capacity=capacity)

    def _count_workers(self, gpus: int) -> int:
        """As many runs as there are cores and GPUs for."""
        fitting = [count_cores() // self.cpus]
        fitting += [gpus * int(1 / (self.gpu_fraction or 1.0) + TOLERANCE)] if gpus else []
        return max(1, min(fitting))


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def list_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them; without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip())
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(str(number) for number, _ in enumerate(listed.stdout.splitlines()))


class _Worker:
    """One job and its process, seen from the parent."""

    def __init__(
        self,
        context: multiprocessing.context.ForkServerContext,
        job: Job,
        place: Place,
        folder: Path,
        imports: Imports,
        checked_servers: set[int],
    ) -> None:
        self.job = job
        self._checked_servers = checked_servers
        self._output = folder / f"{time.monotonic_ns()}.txt"
        self.receiver, sender = context.Pipe(duplex=False)
        args = (sender, job, place, self._output, imports, frozenset(checked_servers))
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

    def is_over(self, grace: float) -> bool:
        """Whether the process has ended and all it sent was taken; kills it at its deadline.

        A process whose function has ended may be kept by a thread or by children that the function has left.
        """
        if self.process.is_alive() and time.monotonic() >= self.deadline:
            self._is_late = not self._has_ended
            _end([self], grace)
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
    connection.wait(sources, timeout=min(SECONDS_ASLEEP, max(0.0, remaining)))  # type: ignore[arg-type]


def _end(workers: Sequence[_Worker], grace: float) -> None:
    """Ask, wait so many seconds, then kill the processes that are still there, and all that they have started."""
    alive = [worker for worker in workers if worker.process.is_alive()]
    descendants = [process for worker in alive for process in list_descendants(worker.pid)]
    for worker in alive:
        worker.was_killed = True
        worker.deadline = float("inf")
        signal_group(worker.pid, signal.SIGTERM)
    patience = time.monotonic() + grace
    for worker in alive:
        worker.process.join(max(0.0, patience - time.monotonic()))
        signal_group(worker.pid, signal.SIGKILL)
    for process in descendants:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for worker in alive:
        worker.process.join(GRACE_SECONDS)  # nothing kills a process that waits for a broken disk


def _await_end_of_server() -> None:
    """Wait until multiprocessing sees that the server, which has stopped to answer, has ended, and starts another.

    It sees that late: the server's first thread may be gone while one that a library has started still ends.
    """
    server: Any = forkserver._forkserver  # multiprocessing has no public way
    ended, patience = server._forkserver_pid, time.monotonic() + GRACE_SECONDS
    while server._forkserver_pid == ended and time.monotonic() < patience:
        server.ensure_running()
        time.sleep(0.01)


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
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Inside, the environment of this process, which its children inherit, has these values too."""
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
