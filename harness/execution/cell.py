"""Executes one run in its own process, or in several."""

import errno
import gc
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from harness.costs import measure_cost
from harness.data.loading import watching_loaders
from harness.engines.memory import OutOfMemoryKills
from harness.errors import Diverged, LoaderKilled, StoreError
from harness.evaluate import peak_memory_gb
from harness.execution.checkpoints import Checkpoints
from harness.execution.context import RunContext, load_code
from harness.execution.launch import Send, launch
from harness.execution.open_run import (
    Kept,
    Measured,
    Opened,
    OpenRun,
    Raised,
    Resumed,
    RunMessage,
    Traced,
    classify_signal,
)
from harness.execution.outcome import Ended, Failure, Outcome
from harness.execution.prepared import Prepared, prepare
from harness.execution.source import WEIGHTS
from harness.files import temporary_folder, write_arrays
from harness.names import to_printable
from harness.plan import PlannedRun
from harness.record import EpochMetrics, Record, RunStatus
from harness.rehearsal import Trace, Visit, VisitedData
from harness.trace import is_short
from harness.tracking import PREDICTIONS

ALLOCATOR_MESSAGES = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")


def run_cell(report: Callable[[RunMessage], None], run: PlannedRun, context: RunContext) -> Record:
    """Train and test one replicate of one cell; whatever it finds is reported as it goes.

    Raises:
        StoreError: the store cannot be read. Everything else becomes the record's status.
    """
    prepared = prepare(run, context)
    open_run = OpenRun(run, context.spec.recipe.limits, prepared.provenance, context.run_id)
    is_rehearsal = is_short(run.row.cell) and context.tests
    checkpoints = None if is_rehearsal else Checkpoints(prepared, open_run)

    def send(message: RunMessage) -> None:
        open_run.add(message)
        report(message)

    send(Opened(prepared.provenance, continues=checkpoints is not None and checkpoints.found is not None))
    with temporary_folder() as folder:
        if prepared.ranks.world_size == 1:
            outcome = _train(send, prepared, checkpoints, folder)
        else:
            args = (run, context, open_run, checkpoints, folder)
            outcome = launch(_train_rank, args, processes=prepared.ranks.world_size, report=send)
        for file in sorted(folder.iterdir()):
            report(Kept(file.name, file.read_bytes()))
    ended, failure = outcome.ended, outcome.failure
    if failure is not None:
        send(Raised(failure.origin if ended.status == RunStatus.FAILED else "", failure.output))
    send(Measured(outcome.metrics))
    return open_run.to_record(*ended)


def attempt(execute: Callable[[], None]) -> tuple[Ended, Failure | None]:
    """How a call ended, and more where it raised: the one place where an exception becomes an outcome.

    Raises:
        StoreError: the store cannot be used.
    """
    kills = OutOfMemoryKills()
    try:
        with watching_loaders():
            execute()
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001
        ended, last = classify(error, kills), traceback.extract_tb(error.__traceback__)[-1]
        failure = Failure(traceback.format_exc(), f"{type(error).__qualname__} in {last.filename}:{last.lineno}")
    else:
        return Ended(RunStatus.OK), None
    gc.collect()  # out here nothing holds the run's tensors: where memory ran out there is room again to say so
    return ended, failure


def _train(send: Send, prepared: Prepared, checkpoints: Checkpoints | None, folder: Path) -> Outcome:
    def execute() -> None:
        with prepared.ranks.joined():
            for message in _execute(prepared, checkpoints, folder):
                send(message)

    return Outcome(*attempt(execute), {"peak_memory_gb": peak_memory_gb(prepared.ranks.device)})


def _train_rank(
    send: Send,
    rank: int,
    run: PlannedRun,
    context: RunContext,
    open_run: OpenRun,
    checkpoints: Checkpoints | None,
    folder: Path,
) -> Outcome:
    """As `run_cell` for one of several ranks, with what the leader has opened and found."""
    load_code(send, run, context)

    def note(message: RunMessage) -> None:
        open_run.add(message)
        send(message)

    return _train(note, prepare(run, context, rank), checkpoints, folder)


def _execute(
    prepared: Prepared, checkpoints: Checkpoints | None, folder: Path
) -> Iterator[Resumed | EpochMetrics | Measured | Traced]:
    """Train and test; predictions and weights of a run that ends well are written to `folder`."""
    cell, task, ranks = prepared.cell, prepared.task, prepared.ranks
    yield Measured(measure_cost(cell))
    data = VisitedData(prepared.load_data(), Visit()) if checkpoints is None else prepared.load_data()
    training = prepared.make_training(data)
    trace = Trace(training, data) if isinstance(data, VisitedData) else None
    try:
        if checkpoints is not None:
            yield from checkpoints.follow(training)
        elif trace is not None:
            yield from trace.follow()
    except Diverged:
        if trace is not None:
            yield Traced(prepared.to_rehearsal(RunStatus.DIVERGED, trace=trace.to_content()))
        raise
    if training.num_validated:
        chance = task.find_chance(task.measures[0], cell.data)
        known = {} if chance is None else {"val/chance": chance}
        yield Measured({"val/images": float(training.num_validated), **known})
    if prepared.context.tests:
        tested = task.evaluate(training.evaluated_model, data.test_batches(), ranks)
        yield Measured({f"test/{name}": score for name, score in tested.scores.items()})
        yield Measured({"test/images": float(tested.num_images)})
        if trace is not None:
            yield Traced(prepared.to_rehearsal(RunStatus.OK, trace=trace.to_content(tested)))
        if ranks.is_first:
            write_arrays(folder / PREDICTIONS, tested.per_image)
    if ranks.is_first:
        weights = training.evaluated_model.state_dict()
        torch.save({name: tensor.cpu() for name, tensor in weights.items()}, folder / WEIGHTS)


def classify(error: Exception, kills: OutOfMemoryKills) -> Ended:
    """How a run ended that raised an exception; `kills` counts since its beginning."""
    if isinstance(error, LoaderKilled):
        is_out_of_memory = error.signal == signal.SIGKILL and kills.claim()
        return Ended(classify_signal(error.signal, is_out_of_memory=is_out_of_memory), str(error))
    if isinstance(error, Diverged):
        return Ended(RunStatus.DIVERGED, error.reason, error.step, error.cause, error.module)
    if _is_out_of_memory(error):
        return Ended(RunStatus.OUT_OF_MEMORY)
    return Ended(RunStatus.FAILED, to_line("".join(traceback.format_exception_only(error))))


def to_line(message: str) -> str:
    """One line of a message of several: the first says what failed, the last why."""
    lines = [line.strip() for line in to_printable(message).splitlines() if line.strip()]
    return " ... ".join(lines if len(lines) <= 2 else (lines[0], lines[-1]))


def _is_out_of_memory(error: Exception) -> bool:
    """Python's allocator, torch's on either device, or the system's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(text in str(error) for text in ALLOCATOR_MESSAGES)
