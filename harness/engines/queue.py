"""Queues of jobs that outlive their caller: Slurm's, and submitit's local executor to try things out."""

import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from harness.engines.engine import Died, JobResult
from harness.engines.imports import list_import_path
from harness.engines.local import count_cores, environment
from harness.errors import EngineError

if TYPE_CHECKING:
    from submitit.core.core import PicklingExecutor

MAX_REQUEUES = 1000
"""Of a job whose time has ended; submitit's own limit is 3."""

SECONDS_BETWEEN_LISTS = 30.0
"""Slurm's controller serves all users."""

LOG_BYTES = 20_000

ENDED_BY_ITSELF = ("COMPLETED", "FAILED")


class Queue(ABC):
    """Takes jobs in the name of a command, which may end before them.

    Attributes:
        patience: seconds after which the files of a job that has ended are complete.
        jobs_at_once: how many are in the queue or execute, unless the user says otherwise.
    """

    patience: float
    jobs_at_once: int

    def __init__(self, logs: Path) -> None:
        self._logs = logs

    @abstractmethod
    def _make_executor(self, parameters: Mapping[str, Any]) -> "PicklingExecutor":
        """The executor of submitit."""

    @abstractmethod
    def list_alive(self, ids: Collection[str]) -> set[str]:
        """Those of some jobs that wait or execute."""

    @abstractmethod
    def cancel(self, ids: Sequence[str]) -> None:
        """End jobs."""

    @abstractmethod
    def describe_cancel(self, ids: Sequence[str]) -> str:
        """The command that does it."""

    @abstractmethod
    def explain(self, job_id: str, name: str) -> JobResult | None:
        """How a job ended that has left no result; None: it was lost, and should start again."""

    def submit(self, functions: Sequence[Callable[[], None]], parameters: Mapping[str, Any]) -> list[str]:
        """Submit calls as one array; the numbers of its jobs.

        Raises:
            EngineError: the queue refuses them.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            with _for_jobs():
                executor = self._make_executor(parameters)
                with executor.batch():
                    jobs = [executor.submit(function) for function in functions]
        except (FailedJobError, FailedSubmissionError, OSError, RuntimeError) as error:
            raise EngineError(f"the jobs cannot be submitted: {str(error).strip()}") from error
        return [job.job_id for job in jobs]

    def read_log(self, job_id: str) -> str:
        """The end of what a job has written."""
        paths = [path for ending in ("out", "err") for path in self._logs.glob(f"{job_id}_0_log.{ending}")]
        return "".join(path.read_text(errors="replace") for path in paths)[-LOG_BYTES:]

    def forget(self, job_id: str) -> None:
        """Remove what submitit has stored for a job; its log stays."""
        for path in self._logs.glob(f"{job_id}_*.pkl"):
            path.unlink(missing_ok=True)


class SlurmQueue(Queue):
    """Slurm's queue, through `sbatch`, `squeue`, `scancel`, `scontrol` and `sacct`."""

    patience = 60.0
    jobs_at_once = 256

    def __init__(self, logs: Path) -> None:
        super().__init__(logs)
        if shutil.which("sbatch") is None:
            raise EngineError(
                "there is no Slurm on this machine: sbatch is not in PATH; `cluster: local` in the file of "
                "--engine-options executes the jobs here"
            )
        self._alive: set[str] = set()
        self._asked = -SECONDS_BETWEEN_LISTS

    def _make_executor(self, parameters: Mapping[str, Any]) -> "PicklingExecutor":
        from submitit import SlurmExecutor

        executor = SlurmExecutor(self._logs, max_num_timeout=MAX_REQUEUES)
        executor.update_parameters(**parameters)
        return executor

    def submit(self, functions: Sequence[Callable[[], None]], parameters: Mapping[str, Any]) -> list[str]:
        """Submit calls as one array."""
        ids = super().submit(functions, parameters)
        self._alive.update(ids)
        return ids

    def list_alive(self, ids: Collection[str]) -> set[str]:
        """Ask Slurm now and then; until then jobs are as they were."""
        if ids and time.monotonic() - self._asked >= SECONDS_BETWEEN_LISTS:
            listed = _run("squeue", "--me", "--noheader", "--array", "--format=%i")
            self._alive, self._asked = set(listed.split()), time.monotonic()
        return self._alive & set(ids)

    def cancel(self, ids: Sequence[str]) -> None:
        """End jobs; Slurm kills them after its own patience."""
        _run("scancel", *ids)

    def describe_cancel(self, ids: Sequence[str]) -> str:
        """The command; of an array that stays as a whole its number is enough."""
        return f"scancel {' '.join(ids)}"

    def explain(self, job_id: str, name: str) -> JobResult | None:
        """By Slurm's own state of the job."""
        state = self._find_state(job_id)
        if state == "CANCELLED":
            return Died(name, -signal.SIGTERM, "")
        if state == "OUT_OF_MEMORY":
            return Died(name, -signal.SIGKILL, self.read_log(job_id), is_out_of_memory=True)
        return Died(name, 1, self.read_log(job_id)) if state in ENDED_BY_ITSELF else None

    def _find_state(self, job_id: str) -> str:
        """What the controller knows for some minutes, or the accounting, which not every cluster has."""
        for command in (
            ("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job_id}"),
            ("sacct", "--noheader", "--parsable2", "--allocations", "--format=State", f"--jobs={job_id}"),
        ):
            try:
                words = _run(*command).split()
            except EngineError:
                continue
            if words:
                return words[0]
        return ""


class LocalQueue(Queue):
    """Processes of this machine, all of them at once; the number of a job is that of the process which controls it."""

    patience = 1.0
    jobs_at_once = count_cores()

    def _make_executor(self, parameters: Mapping[str, Any]) -> "PicklingExecutor":
        from submitit import LocalExecutor

        executor = LocalExecutor(self._logs, max_num_timeout=MAX_REQUEUES)
        executor.update_parameters(
            timeout_min=parameters["time"],
            signal_delay_s=parameters["signal_delay_s"],
            gpus_per_node=parameters.get("gpus_per_node", 0),
        )
        return executor

    def list_alive(self, ids: Collection[str]) -> set[str]:
        """Those whose process exists."""
        return {job_id for job_id in ids if _is_controller(int(job_id))}

    def cancel(self, ids: Sequence[str]) -> None:
        """Kill the controller and all that it has started."""
        for job_id in ids:
            if _is_controller(int(job_id)):
                controller = psutil.Process(int(job_id))
                for process in (controller, *controller.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        process.kill()

    def describe_cancel(self, ids: Sequence[str]) -> str:
        """The command."""
        return f"kill {' '.join(ids)}"

    def explain(self, job_id: str, name: str) -> JobResult | None:
        """Nobody knows more."""


def _is_controller(pid: int) -> bool:
    """Whether a process controls a job: ids of processes that have ended are reused."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "submitit.local._local" in process.cmdline()
    except psutil.Error:
        return False


@contextmanager
def _for_jobs() -> Iterator[None]:
    """Inside, jobs inherit where this process looks for modules, and a working directory that holds none."""
    path = os.pathsep.join(list_import_path())
    with environment({"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}):
        yield


def _run(*command: str) -> str:
    """The output of a command of Slurm.

    Raises:
        EngineError: it fails.
    """
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        raise EngineError(f"{command[0]} fails: {reason}") from error
