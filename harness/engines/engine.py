"""The protocol of an engine: jobs in, events out, one process per job.

An engine pulls a job when it has room for one, starts jobs in their order, and ends every started job with exactly one
`JobResult`, unless the caller closes the iterator first. Nothing that a job does (raise, crash, hang, exhaust memory)
stops the others. All processes that a job has started end with it.

An engine of several hosts may start a job again whose host was lost or whose place was taken by others. `Started` then
comes again, and the messages after it replace those before it.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

THREADS = 1
"""CPU threads of each process, whatever cores it has: threads decide rounding."""


@dataclass(frozen=True)
class Resources:
    """What a job needs, all of it on one host.

    Attributes:
        processes: the number of processes that train together; the job's own process starts the others.
        takes_fewer: whether fewer processes do as well: as many as there are GPUs, or one.
        cpus: cores of each process; None: those of the engine's options, as for the next two.
        gpus: GPUs of each process; less than 1: the share of one.
        memory_gb: memory of each process.
        minutes: the expected duration; None: not known.
    """

    processes: int = 1
    takes_fewer: bool = False
    cpus: int | None = None
    gpus: float | None = None
    memory_gb: float | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Place:
    """Where a job executes; its process gets it from `harness.engines.worker.get_place`.

    Attributes:
        host: the name of the machine.
        cpus: cores for all processes of the job.
        devices: its GPUs, in the order in which its process sees them; empty: the engine has given it none.
    """

    host: str
    cpus: int = 1
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """A picklable call: `function(report, *args)`, where `report(payload)` sends a picklable message at once.

    Attributes:
        name: identifies the job in its events.
        time_limit_seconds: the job is killed after this time; None: no limit.
        memory_limit_gb: memory that the job may allocate beyond that of an idle worker; a larger allocation fails in
            the job. None: no limit.
        resources: what the engine reserves for it.
        key: identifies what is computed, for all callers and at all times, as a file name: an engine whose jobs
            outlive their caller continues with the job that has it. Empty: nobody asks for the job again.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    time_limit_seconds: float | None = None
    memory_limit_gb: float | None = None
    resources: Resources = Resources()
    key: str = ""


@dataclass(frozen=True)
class Started:
    """The process of the job has started, for the first time or again."""

    name: str
    pid: int


@dataclass(frozen=True)
class Message:
    """A message that the job reported."""

    name: str
    payload: Any


@dataclass(frozen=True)
class Returned:
    """The function returned; `output` is the end of what the process wrote to stdout and stderr."""

    name: str
    value: Any
    output: str


@dataclass(frozen=True)
class Died:
    """The process ended without a value: 1 after an exception (`output` has the traceback), -9 after SIGKILL.

    Attributes:
        is_out_of_memory: whether there is evidence that memory ran out.
    """

    name: str
    exit_code: int
    output: str
    is_out_of_memory: bool = False


@dataclass(frozen=True)
class TimedOut:
    """The job was killed at its time limit."""

    name: str
    output: str


@dataclass(frozen=True)
class Stopped:
    """The job was killed because its caller asked for it."""

    name: str
    output: str


JobResult = Returned | Died | TimedOut | Stopped
Event = Started | Message | JobResult


class Engine(Protocol):
    """Executes jobs, each in its own process.

    Attributes:
        workers: number of jobs that execute at the same time.
        threads: number of CPU threads per process.
    """

    workers: int
    threads: int

    def execute(self, jobs: Iterable[Job]) -> Generator[Event, None, None]:
        """Yield events as they happen; closing the iterator kills what still runs.

        Raises:
            EngineError: a job can never fit, jobs cannot be started, or they would execute other code.
        """
        ...

    def take_rest(self) -> list[Event]:
        """Return the events that had arrived when `execute` was closed, once.

        They are messages, and the results of jobs that had ended. A job that was killed by closing has no result.
        """
        ...

    def stop(self, name: str) -> None:
        """Kill one running job, which ends as `Stopped` unless it has returned by then; others continue."""
        ...
