"""The protocol of an engine: jobs in, events out, one process per job.

An engine pulls a job when it has room for one, starts jobs in their order, and ends every started job with exactly one
`JobResult`, unless the caller closes the iterator first. Nothing that a job does (raise, crash, hang, exhaust memory)
stops the others. All processes that a job has started end with it.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Job:
    """A picklable call: `function(report, *args)`, where `report(payload)` sends a picklable message at once.

    Attributes:
        name: identifies the job in its events.
        time_limit_seconds: the job is killed after this time; None: no limit.
        memory_limit_gb: memory that the job may allocate beyond that of an idle worker; a larger allocation fails in
            the job. None: no limit.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    time_limit_seconds: float | None = None
    memory_limit_gb: float | None = None


@dataclass(frozen=True)
class Started:
    """The process of the job has started."""

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
        threads: number of CPU threads per job.
    """

    workers: int
    threads: int

    def execute(self, jobs: Iterable[Job]) -> Generator[Event, None, None]:
        """Yield events as they happen; closing the iterator kills what still runs."""
        ...

    def take_rest(self) -> list[Event]:
        """Return the events that had arrived when `execute` was closed, once.

        They are messages, and the results of jobs that had ended. A job that was killed by closing has no result.
        """
        ...

    def stop(self, name: str) -> None:
        """Kill one running job, which ends as `Stopped` unless it has returned by then; others continue."""
        ...
