import errno
import io
import os
import pickle
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from harness.build import build_model, describe_kernels
from harness.costs import measure_cost
from harness.data import fashion_mnist
from harness.engines.memory import OutOfMemoryKills
from harness.errors import Cause, Diverged, LoaderKilled, StoreError
from harness.execution.cell import classify, run_cell
from harness.execution.context import RunContext, execute_cell
from harness.execution.open_run import Kept, Opened, Raised, RunMessage
from harness.execution.outcome import Ended
from harness.plan import Plan, PlannedRun, make_plan
from harness.processes import name_signal
from harness.record import EpochMetrics, Record, RunStatus
from harness.spec import ExperimentSpec
from harness.tracking import MlflowTracker

PROVENANCE = {"code_digest": "c0de", "data_digest": fashion_mnist.digest_files(None), "device": "CPU"}


@pytest.fixture
def make_context(tracker: MlflowTracker) -> Callable[..., RunContext]:
    def make(spec: ExperimentSpec, **changes: object) -> RunContext:
        return replace(RunContext(tracker, spec, "mine", PROVENANCE, None, 1), **changes)

    return make


def to_trainable(plan: Plan, row: str = "Linear classifier", **training: object) -> Plan:
    """A few hundred images, seen twice; the linear classifier learns from them in an instant."""
    spec = plan.spec
    data = spec.recipe.data.model_copy(update={"train_images": 320, "test_images": 50, "val_images": 100})
    schedule = spec.recipe.training.model_copy(update={"batch_size": 16, "lr": 3e-3, **training})
    recipe = spec.recipe.model_copy(update={"data": data, "training": schedule, "floor_width": 8})
    trainable = make_plan(spec.model_copy(update={"recipe": recipe}))
    return replace(trainable, runs=tuple(run for run in trainable.runs if run.row.name == row))


@pytest.fixture
def thread_count() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


pytestmark = pytest.mark.usefixtures("thread_count")


def execute(plan: Plan, context: RunContext) -> tuple[Record, list[RunMessage]]:
    """Train and test the plan's first run, here."""
    messages: list[RunMessage] = []
    return run_cell(messages.append, plan.runs[0], context), messages


def find_kept(messages: list[RunMessage]) -> dict[str, io.BytesIO]:
    """The files that a run has left behind."""
    return {message.name: io.BytesIO(message.content) for message in messages if isinstance(message, Kept)}


def test_a_run_becomes_a_record_and_stores_nothing(
    plan: Plan, tracker: MlflowTracker, make_context: Callable[..., RunContext]
) -> None:
    plan = to_trainable(plan)
    record, messages = execute(plan, make_context(plan.spec))
    assert record.status == RunStatus.OK, record.status_detail
    assert {"test/top1", "test/top5", "val/top1", "train/images_per_second", "seconds", "peak_memory_gb"} <= set(
        record.metrics
    )
    assert record.metrics["test/images"] == 50
    assert len(record.curve) == 2
    measured = {
        "kernels": describe_kernels(torch.device("cpu")),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
    assert record.provenance == {**PROVENANCE, **measured}
    assert record.limits == {"time_limit_minutes": 5.0}
    assert isinstance(messages[0], Opened)
    assert [message for message in messages if isinstance(message, EpochMetrics)] == list(record.curve)
    assert not tracker.find_runs()


def test_weights_and_predictions_are_kept(plan: Plan, make_context: Callable[..., RunContext]) -> None:
    plan = to_trainable(plan)
    record, messages = execute(plan, make_context(plan.spec))
    kept = find_kept(messages)
    model = build_model(plan.runs[0].row.cell, replicate=1)
    model.load_state_dict(torch.load(kept["weights.pt"], weights_only=True))
    with np.load(kept["predictions.npz"]) as arrays:
        top1 = 100 * float((arrays["predictions"] == arrays["labels"]).mean())
    assert top1 == pytest.approx(record.metrics["test/top1"])


def test_a_run_that_is_not_to_test_keeps_its_weights_and_no_number_of_the_test_set(
    plan: Plan, make_context: Callable[..., RunContext]
) -> None:
    plan = to_trainable(plan)
    record, messages = execute(plan, replace(make_context(plan.spec), tests=False))
    assert record.status == RunStatus.OK, record.status_detail
    assert "val/top1" in record.metrics
    assert not [name for name in record.metrics if name.startswith("test/")]
    assert list(find_kept(messages)) == ["weights.pt"]


def test_the_same_run_twice_gives_the_same_numbers(plan: Plan, make_context: Callable[..., RunContext]) -> None:
    plan = to_trainable(plan)
    context = make_context(plan.spec)
    first, second = (execute(plan, context)[0].metrics for _ in range(2))
    measured = [name for name in first if name.startswith(("val/", "test/", "train/l")) and "seconds" not in name]
    assert {name: first[name] for name in measured} == {name: second[name] for name in measured}


@pytest.mark.parametrize("field", ["channels_last", pytest.param("compile", marks=pytest.mark.slow)])
def test_how_a_step_is_computed_is_in_the_provenance_and_decides_rounding_alone(
    field: str, plan: Plan, make_context: Callable[..., RunContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled without inductor, which takes a minute and more."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    trainable = to_trainable(plan, "Swin-T", ema_decay=0.9)
    recipe = trainable.spec.recipe.model_copy(update={field: True})
    usual, _ = execute(trainable, make_context(trainable.spec))
    changed, _ = execute(trainable, make_context(trainable.spec.model_copy(update={"recipe": recipe})))
    assert field not in usual.provenance
    assert changed.provenance[field] == "yes"
    assert changed.status == usual.status == RunStatus.OK, changed.status_detail
    assert changed.metrics["test/loss"] == pytest.approx(usual.metrics["test/loss"], rel=1e-4)


def test_a_divergence_is_a_result_with_its_step(plan: Plan, make_context: Callable[..., RunContext]) -> None:
    plan = to_trainable(plan, "Swin-T", lr=1e12)
    record, messages = execute(plan, make_context(plan.spec))
    assert record.status == RunStatus.DIVERGED
    assert record.step is not None
    assert record.step < 40
    assert "not finite" in record.status_detail or " is " in record.status_detail
    assert record.cause in (Cause.LOSS, Cause.GRADIENT, Cause.WEIGHT, Cause.VALIDATION)
    assert record.metrics["params"] > 0
    (raised,) = [message for message in messages if isinstance(message, Raised)]
    assert "at step" in raised.output
    assert not raised.origin


def test_an_exception_is_a_failure_with_its_traceback(
    plan: Plan, make_context: Callable[..., RunContext], tmp_path: Path
) -> None:
    record, messages = execute(plan, make_context(plan.spec, data_dir=tmp_path))
    assert record.status == RunStatus.FAILED
    (raised,) = [message for message in messages if isinstance(message, Raised)]
    assert raised.origin.startswith("DataError in ")
    assert "Fashion-MNIST is not complete" in record.status_detail
    assert "Traceback" in raised.output


def test_data_other_than_the_recorded_ones_are_not_trained_on(
    plan: Plan, make_context: Callable[..., RunContext]
) -> None:
    plan = to_trainable(plan)
    changed = {**PROVENANCE, "data_digest": "of yesterday"}
    record, messages = execute(plan, make_context(plan.spec, provenance=changed))
    assert record.status == RunStatus.FAILED
    assert "fashion_mnist have changed since the plan was made" in record.status_detail
    assert not [message for message in messages if isinstance(message, EpochMetrics)]


def test_a_store_that_cannot_be_read_is_not_the_runs_failure(
    plan: Plan, make_context: Callable[..., RunContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = to_trainable(plan)

    def break_down(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr("harness.execution.prepared.make_model", break_down)
    with pytest.raises(StoreError, match="the disk is full"):
        execute(plan, make_context(plan.spec))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            Diverged("the norm of the gradients is nan", step=412, cause=Cause.GRADIENT, module="head"),
            Ended(RunStatus.DIVERGED, "the norm of the gradients is nan", 412, Cause.GRADIENT, "head"),
        ),
        (MemoryError(), Ended(RunStatus.OUT_OF_MEMORY)),
        (torch.OutOfMemoryError("CUDA out of memory"), Ended(RunStatus.OUT_OF_MEMORY)),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), Ended(RunStatus.OUT_OF_MEMORY)),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), Ended(RunStatus.OUT_OF_MEMORY)),
        (FileNotFoundError("no such file"), Ended(RunStatus.FAILED, "FileNotFoundError: no such file")),
        (RuntimeError("shapes do not match"), Ended(RunStatus.FAILED, "RuntimeError: shapes do not match")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value[0].value,
)
def test_exceptions_are_told_apart(error: Exception, expected: Ended) -> None:
    assert classify(error, OutOfMemoryKills()) == expected


@pytest.mark.parametrize(
    ("number", "counted", "expected"),
    [
        (signal.SIGKILL, 0, RunStatus.INTERRUPTED),
        (signal.SIGKILL, 1, RunStatus.OUT_OF_MEMORY),
        (signal.SIGTERM, 1, RunStatus.INTERRUPTED),
        (signal.SIGSEGV, 0, RunStatus.FAILED),
        (35, 0, RunStatus.INTERRUPTED),
    ],
    ids=["killed", "killed by the kernel", "terminated", "crashed", "without a name"],
)
def test_a_killed_loading_process_is_told_from_a_bug(
    monkeypatch: pytest.MonkeyPatch, number: int, counted: int, expected: RunStatus
) -> None:
    kills = OutOfMemoryKills()
    monkeypatch.setattr("harness.engines.memory.count_kills", lambda: kills._known + counted)
    error = LoaderKilled(f"a process that loads images was {name_signal(number)}", number)
    assert classify(error, kills) == Ended(expected, str(error))


def test_the_allocators_own_error_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert classify(caught.value, OutOfMemoryKills()) == Ended(RunStatus.OUT_OF_MEMORY)


def test_cost_needs_no_memory(plan: Plan) -> None:
    cost = measure_cost(plan.rows[0].cell)
    assert cost["params"] == sum(
        parameter.numel() for parameter in build_model(plan.rows[0].cell, replicate=0).parameters()
    )
    assert cost["macs"] > cost["params"]


def test_what_a_worker_is_sent_can_travel(plan: Plan, make_context: Callable[..., RunContext]) -> None:
    sent: tuple[object, PlannedRun, RunContext] = (execute_cell, plan.runs[0], make_context(plan.spec))
    function, run, context = pickle.loads(pickle.dumps(sent))
    assert function is execute_cell
    assert run.row.cell.id == plan.runs[0].row.cell.id
    assert context.spec == plan.spec
