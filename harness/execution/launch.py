"""Starts the ranks of a run by torch's launcher, and ends them as a whole.

The process that starts them, the leader, trains nothing. Each rank sends its outcome to the leader. One that has
failed then waits a moment before it ends, so that the launcher sees the death of a rank that was killed before it sees
the ends of those that have lost their connection to it.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import Pipe, connection, resource_tracker
from pathlib import Path
from types import FrameType
from typing import Any, cast

import psutil
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from harness.engines.memory import OutOfMemoryKills
from harness.errors import StoreError
from harness.execution.open_run import RunMessage, classify_signal
from harness.execution.outcome import Ended, Failure, Outcome
from harness.files import temporary_folder
from harness.processes import end_with_parent, list_descendants, name_signal
from harness.record import RunStatus

SECONDS_BETWEEN_ENDS = 2.0
"""Between the outcome of a rank that has failed and its end."""

Send = Callable[[RunMessage], None]


def launch(
    function: Callable[..., Outcome], args: tuple[Any, ...], *, processes: int, report: Callable[[RunMessage], None]
) -> Outcome:
    """Call `function(send, rank, *args)` in every rank; `report` gets what rank 0 sends.

    Returns:
        The outcome of the rank that ended the run.

    Raises:
        StoreError: a rank, or `report`, cannot use the store.
    """
    resource_tracker.ensure_running()
    kills, others = OutOfMemoryKills(), list_descendants(os.getpid())
    receivers, senders = zip(*(Pipe(duplex=False) for _ in range(processes)), strict=True)
    with temporary_folder() as folder, ThreadPoolExecutor(1) as thread, _passing_sigterm_on() as has_sigterm:
        start = elastic_launch(_configure(processes, folder), _work)
        launcher = thread.submit(start, senders, os.getpid(), function, args)
        launcher.add_done_callback(lambda _: [sender.close() for sender in senders])
        try:
            outcomes = _collect(receivers, report)
        finally:
            for process in list_descendants(os.getpid()):
                if process not in others:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
        failure = _find_failure(launcher) if len(outcomes) < processes else None
    if has_sigterm() and len(outcomes) < processes:
        os.kill(os.getpid(), signal.SIGTERM)  # so the process that waits for this one learns why
    return _choose(outcomes, failure, kills)


def _configure(processes: int, folder: Path) -> LaunchConfig:
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        start_method="spawn",
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
    )


def _collect(receivers: Sequence[connection.Connection], report: Callable[[RunMessage], None]) -> dict[int, Outcome]:
    """The outcomes of the ranks that had one, in the order in which they came.

    Goes on until the launcher has ended, which closes the pipes, or all ranks have an outcome and not all are good.
    """
    outcomes: dict[int, Outcome] = {}
    waiting = dict(zip(receivers, range(len(receivers)), strict=True))
    while waiting:
        for receiver in cast("list[connection.Connection]", connection.wait(waiting)):
            rank = waiting[receiver]
            try:
                message: Any = receiver.recv()
            except (EOFError, OSError):  # the latter where a rank was killed while it was sending
                del waiting[receiver]
                continue
            if isinstance(message, StoreError):
                raise message
            if isinstance(message, Outcome):
                outcomes[rank] = message
            elif rank == 0:
                report(message)
        if len(outcomes) == len(receivers) and any(o.ended.status != RunStatus.OK for o in outcomes.values()):
            break
    return outcomes


def _find_failure(launcher: Future[Any]) -> ProcessFailure | None:
    """The first process that ended with an exit code other than 0."""
    try:
        launcher.result()
    except ChildFailedError as error:
        return error.get_first_failure()[1]
    return None


def _choose(outcomes: dict[int, Outcome], failure: ProcessFailure | None, kills: OutOfMemoryKills) -> Outcome:
    """A signal comes first: exceptions of the other ranks follow from it. Then the first exception."""
    metrics = max(
        (outcome.metrics for outcome in outcomes.values()), key=lambda each: each["peak_memory_gb"], default={}
    )
    if failure is not None and failure.exitcode < 0:
        number = -failure.exitcode
        status = classify_signal(number, is_out_of_memory=number == signal.SIGKILL and kills.claim())
        return Outcome(Ended(status, f"rank {failure.local_rank} was {name_signal(number)}"), None, metrics)
    failed = [outcome for outcome in outcomes.values() if outcome.ended.status != RunStatus.OK]
    if failed:
        return failed[0]._replace(metrics=metrics)
    if failure is not None:  # before its attempt began
        detail = f"rank {failure.local_rank} ended with exit code {failure.exitcode}"
        return Outcome(Ended(RunStatus.FAILED, detail), Failure(failure.message, detail), metrics)
    return outcomes[0]._replace(metrics=metrics)


@contextmanager
def _passing_sigterm_on() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM goes to the ranks, which write a checkpoint; the value tells whether it came."""
    received = list[int]()

    def pass_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for process in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):
                process.terminate()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield partial(bool, received)
    finally:
        signal.signal(signal.SIGTERM, before)


def _work(
    senders: Sequence[connection.Connection], leader: int, function: Callable[..., Outcome], args: tuple[Any, ...]
) -> None:
    """One rank, in its own process; it ends with the leader."""
    end_with_parent()
    if os.getppid() != leader:
        os._exit(1)
    rank = int(os.environ["LOCAL_RANK"])
    send = senders[rank].send
    try:
        outcome = function(send, rank, *args)
    except StoreError as error:
        send(error)
        raise
    send(outcome)
    if outcome.ended.status != RunStatus.OK:
        time.sleep(SECONDS_BETWEEN_ENDS)
        os._exit(1)
