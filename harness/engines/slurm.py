"""The engine `slurm`: each job is an element of a Slurm array, submitted by submitit; jobs outlive their caller.

A job has the folder `KEY` below `slurm` in the folder of the store. Its process writes its events there, and whoever
needs the same key reads them: the command that has submitted the job, or a later one.
"""

import json
import logging
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import psutil
from pydantic import Field

from harness.engines.capacity import Needs
from harness.engines.engine import THREADS, Died, Event, Job, JobResult, Message, Resources, Started, Stopped
from harness.engines.imports import Imports
from harness.engines.mailbox import Receiver, Sender
from harness.engines.options import EngineOptions, Setting
from harness.engines.queue import LocalQueue, Queue, SlurmQueue
from harness.engines.remote import GRACE_SECONDS, Grace, RemoteJob, require_extra
from harness.errors import EngineError
from harness.files import write_atomically
from harness.processes import signal_group
from harness.spec.field import Line, known

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

MINUTES = 60
"""That a job asks for at least; at their end it is requeued and continues."""

SECONDS_TO_REQUEUE = 60
"""After the checkpoint."""

SECONDS_TO_KILL = 600
"""Between SIGTERM and Slurm's kill, at most: 30 s for `scancel`, the partition's grace time for preemption."""

SHARE_TO_REFILL = 8
"""Jobs are submitted when an eighth of the places is free, so that they go in arrays, not one by one."""

QUEUES: dict[str, Callable[[Path], Queue]] = {"slurm": SlurmQueue, "local": LocalQueue}

logger = logging.getLogger(__name__)


class SlurmOptions(EngineOptions):
    """Options of the engine `slurm`; of a job they are those of `sbatch`.

    Attributes:
        cluster: `local` executes jobs on this machine through submitit's local executor, to try the rest out.
        partition: see `sbatch`, as for the next four.
        account: see there.
        qos: see there.
        constraint: see there.
        exclude: see there.
        sbatch: further options of `sbatch` by name, without dashes.
        setup: lines of shell that are executed before a job, such as `module load cuda`.
        cpus: cores of each process of a run.
        gpus: GPUs of each process of a run.
        memory_gb: memory of each process of a run; None: the partition's default.
        minutes: after which a job is requeued; None: twice what its rehearsal forecasts.
        poll_seconds: between two looks at the files of the jobs.
        max_restarts: how often a run is submitted again whose job was lost without a trace.
        grace_seconds: how long a run that is ended may write its checkpoint.
    """

    cluster: Annotated[str, known("cluster", tuple(QUEUES))] = "slurm"
    partition: Line | None = None
    account: Line | None = None
    qos: Line | None = None
    constraint: Line | None = None
    exclude: Line | None = None
    sbatch: dict[str, str | int | bool] = Field(default_factory=dict)
    setup: tuple[Line, ...] = ()
    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[int, Field(ge=0)] = 0
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    minutes: Annotated[int, Field(ge=1)] | None = None
    poll_seconds: Annotated[float, Field(gt=0)] = 2.0
    max_restarts: Annotated[int, Field(ge=0)] = 10
    grace_seconds: Grace = GRACE_SECONDS

    @property
    def _notice_seconds(self) -> int:
        """When Slurm warns a job whose time ends: it writes its checkpoint, and is requeued."""
        return math.ceil(self.grace_seconds) + SECONDS_TO_REQUEUE

    def to_parameters(self, needs: Needs, minutes: float, *, jobs_at_once: int) -> dict[str, object]:
        """The parameters of submitit's Slurm executor for an array of jobs with these needs."""
        stated = self.model_dump(include={"partition", "account", "qos", "constraint", "exclude"}, exclude_none=True)
        return {
            "job_name": "harness",
            "time": math.ceil(minutes),
            "nodes": 1,
            "ntasks_per_node": 1,
            "cpus_per_task": needs.cpus,
            **({"gpus_per_node": needs.devices} if needs.devices else {}),
            **({"mem": f"{math.ceil(1000 * needs.memory_gb)}MB"} if needs.memory_gb else {}),
            "array_parallelism": jobs_at_once,
            "signal_delay_s": self._notice_seconds,
            "setup": list(self.setup),
            "additional_parameters": {"requeue": True, **self.sbatch},
            **stated,
        }

    def build(self, setting: Setting) -> "SlurmEngine":
        """The engine on the cluster that this host belongs to."""
        require_extra("slurm", "submitit")
        folder = setting.folder / "slurm"
        return SlurmEngine(self, setting, QUEUES[self.cluster](folder / "logs"), folder)


class SlurmEngine:
    """Submits jobs, reads their events from files, and leaves them to the cluster when it is closed."""

    def __init__(self, options: SlurmOptions, setting: Setting, queue: "Queue", folder: Path) -> None:
        asked = setting.workers or options.workers or "auto"
        self.workers = queue.jobs_at_once if asked == "auto" else asked
        self.threads = THREADS
        self._options = options
        self._queue = queue
        self._folder = folder
        self._share = Resources(cpus=options.cpus, gpus=options.gpus, memory_gb=options.memory_gb)
        self._preload = tuple(setting.preload)
        self._imports = Imports.here()
        self._unwanted: set[str] = set()
        self._rest: list[Event] = []

    def execute(self, jobs: Iterable[Job]) -> Generator[Event, None, None]:
        """Yield events as they happen; closing the iterator leaves what still runs to the cluster.

        Jobs that an earlier command has left there are continued, not submitted.
        """
        waiting = iter(jobs)
        running: list[_Submitted] = []
        try:
            while True:
                room = self.workers - len(running)
                if room >= self.workers / SHARE_TO_REFILL:
                    running += self._find_or_submit(list(islice(waiting, room)), {job.folder for job in running})
                if not running:
                    return
                self._stop_unwanted(running)
                is_idle = True
                for entry, event in self._take_events(running):
                    is_idle = False
                    yield event
                    if isinstance(event, JobResult):
                        running.remove(entry)
                        self._forget(entry)
                if is_idle:
                    time.sleep(self._options.poll_seconds)
        finally:
            self._leave(running)

    def take_rest(self) -> list[Event]:
        """Return the events that had arrived when `execute` was closed, once."""
        rest, self._rest = self._rest, []
        return rest

    def stop(self, name: str) -> None:
        """Cancel one job when the iterator is asked for its next event."""
        self._unwanted.add(name)

    def _find_or_submit(self, jobs: Sequence[Job], taken: Collection[Path]) -> list["_Submitted"]:
        """The jobs in their order, those that are known to the cluster already and those that are not."""
        entries: list[_Submitted] = []
        for job in jobs:
            known = self._folder / job.key
            is_taken = not job.key or known in taken or known in {entry.folder for entry in entries}
            entries.append(_Submitted(job, self._folder / uuid4().hex if is_taken else known))
        alive = self._queue.list_alive([entry.job_id for entry in entries if entry.job_id])
        for entry in entries:
            if entry.job_id and entry.job_id not in alive and not entry.has_result():
                shutil.rmtree(entry.folder)  # its checkpoint lies elsewhere
                entry.job_id = ""
        self._submit([entry for entry in entries if not entry.job_id])
        return [replace(entry, receiver=Receiver(entry.folder)) for entry in entries]

    def _submit(self, entries: Sequence["_Submitted"]) -> None:
        """One array for neighbours with equal needs."""
        shared = (self._share, self._imports, self._preload, self._options.grace_seconds)
        agents = [_Agent(RemoteJob(entry.job, *shared), entry.folder) for entry in entries]
        for needs, group in groupby(zip(entries, agents, strict=True), key=lambda pair: pair[1].remote.needs):
            members = list(group)
            minutes = max(self._choose_minutes(entry.job) for entry, _ in members)
            parameters = self._options.to_parameters(needs, minutes, jobs_at_once=self.workers)
            ids = self._queue.submit([agent for _, agent in members], parameters)
            for (entry, _), job_id in zip(members, ids, strict=True):
                entry.note(job_id)

    def _choose_minutes(self, job: Job) -> float:
        """Of a job in the queue: what the options state, or else room for the time limit, or for the forecast."""
        if self._options.minutes is not None:
            return self._options.minutes
        limit = 2 * (job.resources.minutes or 0.0) if job.time_limit_seconds is None else job.time_limit_seconds / 60
        return max(MINUTES, limit + 10)

    def _stop_unwanted(self, running: Iterable["_Submitted"]) -> None:
        for entry in running:
            if entry.name in self._unwanted:
                entry.is_unwanted = True
                self._queue.cancel([entry.job_id])
        self._unwanted.clear()

    def _take_events(self, running: list["_Submitted"]) -> Iterator[tuple["_Submitted", Event]]:
        """What has arrived, and the results of jobs that have left none and that the cluster does not have any more."""
        for entry in [*running]:
            for event in entry.take_events():
                yield entry, event
        alive = self._queue.list_alive([entry.job_id for entry in running])
        for entry in [*running]:
            if entry.job_id not in alive and entry.is_gone_for(self._queue.patience):
                result = self._end_lost(entry)
                if result is not None:
                    yield entry, result

    def _end_lost(self, entry: "_Submitted") -> JobResult | None:
        """The result of a job that is gone; None where it is submitted again."""
        if entry.is_unwanted:
            return Stopped(entry.name, "")
        result = self._queue.explain(entry.job_id, entry.name)
        if result is None and entry.restarts < self._options.max_restarts:
            entry.restarts += 1
            self._submit([entry])
            return None
        return result or Died(entry.name, -signal.SIGKILL, self._queue.read_log(entry.job_id))

    def _forget(self, entry: "_Submitted") -> None:
        """Remove what is left of a job whose result was taken; its log stays."""
        shutil.rmtree(entry.folder, ignore_errors=True)
        self._queue.forget(entry.job_id)

    def _leave(self, running: Sequence["_Submitted"]) -> None:
        """Take what has arrived, and say how to cancel the others."""
        left = []
        for entry in running:
            events = list(entry.take_events())
            self._rest += [event for event in events if isinstance(event, Message | JobResult)]
            if any(isinstance(event, JobResult) for event in events):
                self._forget(entry)
            else:
                left.append(entry.job_id)
        if left:
            logger.warning(
                "%d jobs stay in the queue, and the same command continues with them; to cancel them: %s",
                len(left),
                self._queue.describe_cancel(left),
            )


@dataclass
class _Submitted:
    """A job of the cluster, seen from the command that reads its events; `job_id` is empty before it is submitted."""

    job: Job
    folder: Path
    receiver: Receiver | None = None
    restarts: int = 0
    is_unwanted: bool = False
    job_id: str = field(init=False)
    _gone_since: float | None = None

    def __post_init__(self) -> None:
        path = self.folder / "job.json"
        self.job_id = json.loads(path.read_text())["job_id"] if path.exists() else ""

    @property
    def name(self) -> str:
        """Of the job."""
        return self.job.name

    def note(self, job_id: str) -> None:
        """Write down the job's number, so that later commands find it."""
        self.job_id, self._gone_since = job_id, None
        write_atomically(self.folder / "job.json", json.dumps({"job_id": job_id}))

    def take_events(self) -> Iterator[Event]:
        """What arrived since the last call, under the name that this command has for the job."""
        assert self.receiver is not None
        for event in self.receiver.receive():
            if isinstance(event, EngineError):
                shutil.rmtree(self.folder, ignore_errors=True)
                raise event
            yield replace(event, name=self.name)

    def has_result(self) -> bool:
        """Whether the job has ended by itself."""
        return any(isinstance(event, JobResult | EngineError) for event in Receiver(self.folder).receive())

    def is_gone_for(self, seconds: float) -> bool:
        """Whether it has been missing for so long that its last words would have arrived."""
        now = time.monotonic()
        self._gone_since = self._gone_since or now
        return now - self._gone_since >= seconds


class _Agent:
    """What submitit executes on a host: the job, whose events go to the files in `folder`."""

    def __init__(self, remote: RemoteJob, folder: Path) -> None:
        self.remote = remote
        self._folder = folder
        self._process = 0
        self._begun = time.monotonic()
        self._has_ended = False

    def __call__(self) -> None:
        """Execute the job. When Slurm ends it for others it has no result: it is requeued, or submitted again."""
        self._begun = time.monotonic()
        sender = Sender(self._folder)
        try:
            signal.signal(signal.SIGTERM, _end)
            for event in self.remote.build_engine().execute([self.remote.job]):
                if isinstance(event, Started):
                    self._process = event.pid
                self._has_ended = isinstance(event, JobResult)
                sender.send(event)
        except EngineError as error:
            sender.send(error)
        except _Ended:
            if "SLURM_JOB_ID" in os.environ:  # Slurm requeues what it kills, but nothing that ends before
                time.sleep(SECONDS_TO_KILL)

    def checkpoint(self) -> "DelayedSubmission | None":
        """What is left to do when Slurm takes the place back; submitit calls this on SIGUSR2, and requeues it."""
        from submitit.helpers import DelayedSubmission

        if self._has_ended:
            return None
        self._end_process()
        job, passed = self.remote.job, time.monotonic() - self._begun
        limit = job.time_limit_seconds
        job = replace(job, time_limit_seconds=None if limit is None else max(0.0, limit - passed))
        return DelayedSubmission(_Agent(replace(self.remote, job=job), self._folder))

    def _end_process(self) -> None:
        if not self._process:
            return
        signal_group(self._process, signal.SIGTERM)
        patience = time.monotonic() + self.remote.grace_seconds
        while psutil.pid_exists(self._process) and time.monotonic() < patience:
            time.sleep(0.05)
        signal_group(self._process, signal.SIGKILL)  # also what it has left behind


class _Ended(BaseException):
    """Slurm's SIGTERM, which precedes its kill."""


def _end(_number: int, _frame: object) -> None:
    """End the engine, and with it the job, which writes its checkpoint."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Ended
