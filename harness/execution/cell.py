"""Executes one run in its own process."""

import errno
import gc
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import nn

from harness.checkpoint import Checkpoint
from harness.costs import measure_cost
from harness.data.loading import watching_loaders
from harness.engines.memory import OutOfMemoryKills
from harness.errors import Cause, Diverged, LoaderKilled, StoreError
from harness.evaluate import peak_memory_gb
from harness.execution.checkpoints import Checkpoints
from harness.execution.context import RunContext
from harness.execution.open_run import Measured, Opened, OpenRun, Raised, Resumed, RunMessage, Traced, classify_signal
from harness.execution.prepared import Prepared, prepare
from harness.execution.source import WEIGHTS
from harness.files import temporary_folder, write_arrays
from harness.names import to_printable
from harness.plan import PlannedRun
from harness.record import EpochMetrics, Record, RunStatus
from harness.rehearsal import Trace, Visit, VisitedData
from harness.tasks import Evaluation
from harness.trace import is_short
from harness.tracking import PREDICTIONS, Tracker


class Ended(NamedTuple):
    """The fields of a record that say how a run ended."""

    status: RunStatus
    detail: str = ""
    step: int | None = None
    cause: Cause | None = None
    module: str = ""


class Failure(NamedTuple):
    """What is known of an exception besides its outcome: its traceback, and its origin as in `Raised`."""

    output: str
    origin: str


ALLOCATOR_MESSAGES = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")


def run_cell(report: Callable[[RunMessage], None], run: PlannedRun, context: RunContext) -> Record:
    """Train and test one replicate of one cell, written to the store as it goes.

    Raises:
        StoreError: the store cannot be used. Everything else becomes the record's status.
    """
    prepared = prepare(run, context)
    open_run = OpenRun(run, context.spec.recipe.limits, prepared.provenance)
    is_rehearsal = is_short(run.row.cell) and context.tests
    checkpoints = None if is_rehearsal else Checkpoints(prepared, open_run)
    run_id, logged = _open(prepared, None if checkpoints is None else checkpoints.found)

    def send(message: RunMessage) -> None:
        open_run.add(message)
        if isinstance(message, EpochMetrics) and message.epoch not in logged:
            context.tracker.log_epoch(run_id, message)
        report(message)

    def execute() -> None:
        for message in _execute(prepared, run_id, checkpoints):
            send(message)

    send(Opened(run_id, prepared.provenance))
    ended, failure = attempt(execute)
    if failure is not None:
        context.tracker.log_text(run_id, failure.output, "error.txt")
        if ended.status == RunStatus.FAILED:
            send(Raised(failure.origin))
    send(Measured({"peak_memory_gb": peak_memory_gb(prepared.device)}))
    record = open_run.to_record(*ended)
    context.tracker.finish_run(run_id, record)
    if checkpoints is not None and record.status == RunStatus.OK:
        checkpoints.remove()
    return record


def _open(prepared: Prepared, found: Checkpoint | None) -> tuple[str, frozenset[int]]:
    """The id of the run in the store, and the epochs that it has there; a new run where none can go on."""
    context, tracker = prepared.context, prepared.context.tracker
    if found is None:
        logged = None
    else:
        run_id, logged = found.run_id, tracker.resume_run(found.run_id, spec=context.spec, parent_id=context.parent_id)
    if logged is None:
        run_id = tracker.start_run(
            prepared.run, spec=context.spec, parent_id=context.parent_id, provenance=prepared.provenance
        )
        logged = frozenset()
    for epoch in () if found is None else found.curve:
        if epoch.epoch not in logged:
            tracker.log_epoch(run_id, epoch)
    return run_id, logged


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


def _execute(
    prepared: Prepared, run_id: str, checkpoints: Checkpoints | None
) -> Iterator[Resumed | EpochMetrics | Measured | Traced]:
    cell, task, tracker = prepared.cell, prepared.task, prepared.context.tracker
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
        tested = task.evaluate(training.evaluated_model, data.test_batches(), prepared.device)
        yield Measured({f"test/{name}": score for name, score in tested.scores.items()})
        yield Measured({"test/images": float(tested.num_images)})
        if trace is not None:
            yield Traced(prepared.to_rehearsal(RunStatus.OK, trace=trace.to_content(tested)))
        _log_predictions(tracker, run_id, tested)
    _log_weights(tracker, run_id, training.evaluated_model)


def _log_weights(tracker: Tracker, run_id: str, model: nn.Module) -> None:
    """Those that are evaluated become an artifact."""
    with temporary_folder() as folder:
        weights = folder / WEIGHTS
        torch.save({name: tensor.cpu() for name, tensor in model.state_dict().items()}, weights)
        tracker.log_file(run_id, weights)


def _log_predictions(tracker: Tracker, run_id: str, tested: Evaluation) -> None:
    """What was predicted for each test image becomes an artifact."""
    with temporary_folder() as folder:
        tracker.log_file(run_id, write_arrays(folder / PREDICTIONS, tested.per_image))


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
