"""The engine `ray`: each job is a task of a Ray cluster; the jobs of a host that is lost start again on another."""

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from time import monotonic
from typing import Annotated, Any

from pydantic import Field

from harness.engines.capacity import Needs, make_error
from harness.engines.engine import THREADS, Died, Event, Job, JobResult, Message, Resources, Stopped
from harness.engines.imports import Imports
from harness.engines.options import EngineOptions, Setting
from harness.engines.remote import GRACE_SECONDS, Grace, RemoteJob, require_extra
from harness.errors import EngineError
from harness.spec.field import Line

SECONDS_BETWEEN_CHECKS = 1.0
"""Whether a job is to be stopped, when no event arrives."""

SECONDS_TO_ANSWER = 10.0
"""For a host to report that a job has ended."""

KILLED = -9


class RayOptions(EngineOptions):
    """Options of the engine `ray`.

    Attributes:
        address: of a running cluster as `ray.init` takes it, `auto` for that of this host; None: Ray is started on
            this machine.
        cpus: cores of each process of a run.
        gpus: GPUs of each process of a run: a whole number, or the share of one.
        memory_gb: memory of each process of a run, as Ray counts it; None: not counted.
        max_restarts: how often a run is started again whose host was lost.
        grace_seconds: how long a run that is ended may write its checkpoint.
    """

    address: Line | None = None
    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0.0
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    max_restarts: Annotated[int, Field(ge=0)] = 10
    grace_seconds: Grace = GRACE_SECONDS

    def build(self, setting: Setting) -> "RayEngine":
        """The engine on a running cluster, or on one of this machine alone."""
        require_extra("ray", "ray")
        if self.gpus > 1 and not self.gpus.is_integer():
            raise EngineError(f"gpus must be a whole number or less than 1, got {self.gpus}")
        _connect(self.address)
        return RayEngine(self, setting)


class RayEngine:
    """A task of Ray executes a job as the engine `local` would, and its events are the task's results.

    Ray itself restarts nothing: it would drop the events of the second attempt that the first one had already sent.
    """

    def __init__(self, options: RayOptions, setting: Setting) -> None:
        asked = setting.workers or options.workers or "auto"
        self.threads = THREADS
        self._limit = None if asked == "auto" else asked
        self._share = Resources(cpus=options.cpus, gpus=options.gpus, memory_gb=options.memory_gb)
        self._max_restarts, self._grace = options.max_restarts, options.grace_seconds
        self._preload = tuple(setting.preload)
        self._imports = Imports.here()
        self._unwanted: set[str] = set()
        self._rest: list[Event] = []
        self.workers = self._count_workers()

    def _count_workers(self) -> int:
        """As many as was asked for, or the runs of one process that the hosts of this moment have room for."""
        needs = Needs.of(Resources(), self._share)
        return self._limit or max(1, sum(_count_fitting(needs, node) for node in _list_nodes()))

    def execute(self, jobs: Iterable[Job]) -> Generator[Event, None, None]:
        """Yield events as they happen; closing the iterator ends what still runs."""
        waiting = iter(jobs)
        running: list[_Task] = []
        try:
            while True:
                self.workers = self._count_workers()
                while len(running) < self.workers and (job := next(waiting, None)) is not None:
                    running.append(self._start(job))
                if not running:
                    return
                for task in running:
                    if task.name in self._unwanted:
                        task.cancel()
                self._unwanted.clear()
                for task in _wait(running, SECONDS_BETWEEN_CHECKS):
                    event = task.take_event()
                    if isinstance(event, JobResult):
                        running.remove(task)
                    if event is not None:
                        yield event
        finally:
            self._rest += _end(running)

    def take_rest(self) -> list[Event]:
        """Return the events that had arrived when `execute` was closed, once."""
        rest, self._rest = self._rest, []
        return rest

    def stop(self, name: str) -> None:
        """End one running job, when the iterator is asked for its next event."""
        self._unwanted.add(name)

    def _start(self, job: Job) -> "_Task":
        remote = RemoteJob(job, self._share, self._imports, self._preload, self._grace)
        nodes = _list_nodes()
        if not any(_count_fitting(remote.needs, node) for node in nodes):
            largest = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
            raise make_error(remote.needs, f"hosts of at most {largest:g} cores in the cluster")
        return _Task(remote, self._max_restarts)


class _Task:
    """One job as a task of the cluster, seen from the driver."""

    def __init__(self, remote: RemoteJob, restarts: int) -> None:
        self.name = remote.job.name
        self._remote = remote
        self._restarts = restarts
        self._deadline: float | None = None
        self.stream = self._submit()

    def _submit(self) -> Any:
        import ray

        needs = self._remote.needs
        return (
            ray.remote(_execute_job)
            .options(
                num_returns="streaming",
                max_retries=0,
                num_cpus=needs.cpus,
                num_gpus=needs.gpus if needs.devices <= 1 else needs.devices,
                memory=int(needs.memory_gb * 1e9) or None,
                name=self.name,
            )
            .remote(self._remote)
        )

    def take_event(self) -> Event | None:
        """The next event, which has arrived; None where the job starts again. One that is to end is waited for."""
        import ray
        from ray import exceptions

        if self._deadline is not None:
            ended, _ = ray.wait([self.stream.completed()], timeout=max(0.0, self._deadline - monotonic()))
            if not ended:
                ray.cancel(self.stream, force=True)
        try:
            event: Event = ray.get(next(self.stream))
        except exceptions.TaskCancelledError:
            return Stopped(self.name, "")
        except exceptions.OutOfMemoryError as error:
            return Died(self.name, KILLED, str(error), is_out_of_memory=True)
        except exceptions.RayTaskError as error:
            raise EngineError(_explain(error)) from None
        except (exceptions.RayError, StopIteration) as error:  # of a host or a process that is lost
            return self._restart(error)
        return event

    def _restart(self, error: Exception) -> Event | None:
        if self._deadline is not None:
            return Stopped(self.name, "")
        if self._restarts == 0:
            return Died(self.name, KILLED, str(error))
        self._restarts -= 1
        self.stream = self._submit()
        return None

    def cancel(self) -> None:
        """Ask the job to end; it is killed where it does not."""
        import ray

        self._deadline = monotonic() + self._remote.grace_seconds + SECONDS_TO_ANSWER
        ray.cancel(self.stream)


def _execute_job(remote: RemoteJob) -> Iterator[Event]:
    """The task: events of the job, on the host where it executes."""
    yield from remote.build_engine().execute([remote.job])


def _wait(tasks: list[_Task], seconds: float) -> list[_Task]:
    """The tasks whose next event has arrived, after at most so many seconds."""
    import ray

    streams = {task.stream: task for task in tasks}
    ready, _ = ray.wait(list(streams), num_returns=len(streams), timeout=0)
    if not ready:
        ready, _ = ray.wait(list(streams), num_returns=1, timeout=seconds)
    return [streams[stream] for stream in ready]


def _end(tasks: list[_Task]) -> list[Event]:
    """End all tasks; the events that arrive until then, with the results of jobs that had ended."""
    for task in tasks:
        task.cancel()
    events: list[Event] = []
    for task in tasks:
        with suppress(EngineError):  # of a host with other code, which has been reported
            while not isinstance(event := task.take_event(), Stopped):
                if isinstance(event, Message | JobResult):
                    events.append(event)
                if isinstance(event, JobResult):
                    break
    return events


def _connect(address: str | None) -> None:
    """Join a cluster, or start one; once in a process.

    Raises:
        EngineError: nobody answers at this address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no request leaves the machine
    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a cluster of this machine alone needs no token
    import ray

    if ray.is_initialized():
        return
    try:
        ray.init(address=address, include_dashboard=False if address is None else None, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EngineError(f"Ray cannot be used at {address or 'this machine'}: {error}") from error


def _list_nodes() -> list[dict[str, float]]:
    """The resources of each host of the cluster, whoever uses them now."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _count_fitting(needs: Needs, node: dict[str, float]) -> int:
    """How many jobs with these needs fit on a host that has nothing else to do."""
    pairs = (("CPU", needs.cpus), ("GPU", needs.gpus * needs.processes), ("memory", needs.memory_gb * 1e9))
    return int(min(node.get(name, 0.0) / amount for name, amount in pairs if amount))


def _explain(error: Exception) -> str:
    """What a task has raised: nothing that a job does raises here."""
    cause = getattr(error, "cause", None)
    return str(cause) if isinstance(cause, EngineError) else str(error).strip().splitlines()[-1]
