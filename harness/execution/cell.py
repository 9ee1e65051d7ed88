"""Executes one run in its own process."""

import errno
import gc
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from harness.build import build_model, describe_kernels
from harness.cell import Cell
from harness.data import load_data
from harness.data.loading import watching_loaders
from harness.engines.memory import OutOfMemoryKills
from harness.errors import Cause, DataError, Diverged, LoaderKilled, StoreError
from harness.evaluate import count_multiply_adds, count_parameters, peak_memory_gb
from harness.execution.context import RunContext
from harness.execution.open_run import Measured, Note, Opened, OpenRun, classify_signal
from harness.execution.source import WEIGHTS, Source, find_source
from harness.files import temporary_folder
from harness.names import to_printable
from harness.plan import PlannedRun
from harness.record import EpochMetrics, Record, RunStatus
from harness.spec import ExperimentSpec
from harness.tasks import TASKS, Evaluation
from harness.tracking import Tracker
from harness.train import train
from harness.weights import start_from


class Ended(NamedTuple):
    """The fields of a record that say how a run ended."""

    status: RunStatus
    detail: str = ""
    step: int | None = None
    cause: Cause | None = None
    module: str = ""


INSTRUCTION_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
ALLOCATOR_MESSAGES = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")


def run_cell(report: Callable[[Note], None], run: PlannedRun, context: RunContext) -> Record:
    """Train and test one replicate of one cell, written to the store as it goes.

    Raises:
        StoreError: the store cannot be used. Everything else becomes the record's status.
    """
    torch.set_num_threads(context.threads)
    device, source = choose_device(context.spec), find_source(run, context.tracker)
    provenance = {**context.provenance, **_name_accelerator(device), **_describe_instructions()}
    provenance["kernels"] = describe_kernels(device)
    provenance |= {} if source is None else {"init_from": source.description}
    run_id = context.tracker.start_run(run, spec=context.spec, parent_id=context.parent_id, provenance=provenance)
    open_run = OpenRun(run, context.spec.recipe.limits, provenance)

    def note(message: Note) -> None:
        open_run.add(message)
        if isinstance(message, EpochMetrics):
            context.tracker.log_epoch(run_id, message)
        report(message)

    note(Opened(run_id, provenance))
    ended = _attempt(run, context, device, note, run_id, source)
    note(Measured({"peak_memory_gb": peak_memory_gb(device)}))
    record = open_run.to_record(*ended)
    context.tracker.finish_run(run_id, record)
    return record


def _attempt(
    run: PlannedRun,
    context: RunContext,
    device: torch.device,
    note: Callable[[Note], None],
    run_id: str,
    source: Source | None,
) -> Ended:
    """The one place where an exception becomes an outcome."""
    kills = OutOfMemoryKills()
    try:
        with watching_loaders():
            for message in _execute(run, context, device, run_id, source):
                note(message)
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001
        ended = classify(error, kills)
        trace = traceback.format_exc()
    else:
        return Ended(RunStatus.OK)
    gc.collect()  # out here nothing holds the run's tensors: where memory ran out there is room again to say so
    context.tracker.log_text(run_id, trace, "error.txt")
    return ended


def _execute(
    run: PlannedRun, context: RunContext, device: torch.device, run_id: str, source: Source | None
) -> Iterator[EpochMetrics | Measured]:
    cell = run.row.cell
    task = TASKS[cell.data.task]
    yield Measured(measure_cost(cell))
    data = load_data(cell.data, cell.training, replicate=run.seed, data_dir=context.data_dir, device=device)
    if data.digest != context.provenance["data_digest"]:
        raise DataError(f"the files of {cell.data.name} have changed since the plan was made")
    model = build_model(cell, replicate=run.seed, device=device)
    if source is not None:
        _start_from(source, context.tracker, model)
    training = train(model, data, cell.training, task=task, replicate=run.seed, device=device)
    yield from training
    if training.validated is not None:
        chance = task.find_chance(task.measures[0], cell.data)
        known = {} if chance is None else {"val/chance": chance}
        yield Measured({"val/images": float(training.validated.num_images), **known})
    if context.tests:
        tested = task.evaluate(training.evaluated_model, data.test_batches(), device)
        yield Measured({f"test/{name}": score for name, score in tested.scores.items()})
        yield Measured({"test/images": float(tested.num_images)})
        _keep_predictions(context.tracker, run_id, tested)
    _keep_weights(context.tracker, run_id, training.evaluated_model)


def _start_from(source: Source, tracker: Tracker, model: nn.Module) -> None:
    with temporary_folder() as folder:
        start_from(model, source.fetch(tracker, folder))


def measure_cost(cell: Cell) -> dict[str, float]:
    """Parameters and multiply-adds an image, without memory for either."""
    model = build_model(cell, replicate=None, device="meta")
    shape = (cell.data.channels, cell.data.image_size, cell.data.image_size)
    return {"params": float(count_parameters(model)), "macs": float(count_multiply_adds(model, shape))}


def _keep_weights(tracker: Tracker, run_id: str, model: nn.Module) -> None:
    """Those that are evaluated become an artifact."""
    with temporary_folder() as folder:
        weights = folder / WEIGHTS
        torch.save({name: tensor.cpu() for name, tensor in model.state_dict().items()}, weights)
        tracker.log_file(run_id, weights)


def _keep_predictions(tracker: Tracker, run_id: str, tested: Evaluation) -> None:
    """What was predicted for each test image becomes an artifact."""
    with temporary_folder() as folder:
        predictions = folder / "predictions.npz"
        arrays: dict[str, Any] = dict(tested.per_image)
        np.savez_compressed(predictions, **arrays)
        tracker.log_file(run_id, predictions)


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


def choose_device(spec: ExperimentSpec) -> torch.device:
    """The GPU where there is one, kept to the recipe's memory limit; the engine keeps the CPU's."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device, limit = torch.device("cuda", 0), spec.recipe.limits.memory_limit_gb
    if limit is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit * 1e9 / total), device)
    return device


def _describe_instructions() -> dict[str, str]:
    """Instruction sets decide rounding: that of torch's own kernels, and what the environment asks of its libraries."""
    asked = [f"{name}={os.environ[name]}" for name in INSTRUCTION_VARIABLES if name in os.environ]
    return {"instructions": ", ".join([torch.backends.cpu.get_cpu_capability(), *asked])}


def _name_accelerator(device: torch.device) -> dict[str, str]:
    return {} if device.type == "cpu" else {"device": torch.cuda.get_device_name(device)}
