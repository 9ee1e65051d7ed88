"""Runs are killed in processes of their own; what continues them computes the same, bit for bit."""

import errno
import math
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from harness.checkpoint import CheckpointFolder, locate_checkpoints
from harness.data import data_digest
from harness.engines.engine import Died, Engine, Job, Message, Returned, Started
from harness.engines.engine import Event as EngineEvent
from harness.execution import RunEnded, checkpoints
from harness.execution.cell import run_cell
from harness.execution.invocation import Invocation
from harness.execution.ledger import Standing, read_ledger
from harness.execution.open_run import Resumed, RunMessage, Warned
from harness.execution.rehearsals import Rehearser
from harness.execution.setup import Setup
from harness.plan import Plan, PlannedRun, make_plan
from harness.record import EpochMetrics, Record, RunStatus
from harness.spec import AugmentationSpec, BackbonesSpec, DataSpec, ExperimentSpec, RecipeSpec, SwinSpec, TrainingSpec
from harness.tasks import TASKS, Evaluation
from harness.tasks.classification import Classification
from harness.tracking import MlflowTracker
from harness.train import Training
from tests.pictures import write_pictures

pytestmark = pytest.mark.forks

FORK = multiprocessing.get_context("fork")
CODE = "c0de"

MEMORY = DataSpec(
    name="fashion_mnist", num_classes=10, channels=1, image_size=28, train_images=220, val_images=60, test_images=50
)
STREAM = DataSpec(
    name="image_folder", num_classes=2, channels=3, image_size=28, val_images=10, crop_pct=0.9, loading_workers=2
)
AUGMENTATION = AugmentationSpec(hflip=0.5, shift=2, reprob=0.5, mixup=0.8, cutmix=1.0)
CROPS = AugmentationSpec(
    hflip=0.5, reprob=0.5, scale=(0.3, 1.0), auto_augment="rand-m9-mstd0.5-inc1", mixup=0.8, cutmix=1.0
)


def make_spec(data: DataSpec, augmentation: AugmentationSpec) -> ExperimentSpec:
    """One row of a Swin with drop path, warm-up and a moving average: 39 steps, or more of image files."""
    training = TrainingSpec(
        lr=1e-3, batch_size=16, epochs=3, warmup_epochs=0.5, clip_grad=1.0, ema_decay=0.9, augmentation=augmentation
    )
    swin = SwinSpec(
        patch_size=2,
        embed_dim=8,
        depths=(1, 1),
        num_heads=(2, 4),
        window_size=7,
        drop_path_rate=0.3,
        weight_init="reset",
    )
    recipe = RecipeSpec(
        name="tiny", title="Tiny", data=data, backbones=BackbonesSpec(swin=swin), training=training,
        checkpoint_minutes=1e-9,
    )  # fmt: skip
    return ExperimentSpec(name="mine", title="Mine", recipe=recipe, baseline="A", rows={"A": {}}, seeds=1)


@dataclass
class ForkEngine:
    """Runs each job in a process of its own, to which `change` is done before."""

    change: Callable[[], object]
    messages: list[RunMessage] = field(default_factory=list)
    exit_code: int = 0
    workers: int = 1
    threads: int = 1

    def execute(self, jobs: Iterable[Job]) -> Generator[EngineEvent, None, None]:
        for job in jobs:
            yield Started(job.name, 1)
            receiver, sender = FORK.Pipe(duplex=False)
            process = FORK.Process(target=work, args=(sender, job, self.change))
            process.start()
            sender.close()
            values = list[Any]()
            with suppress(EOFError):
                while True:
                    values.append(receiver.recv())
                    self.messages += values[-2:-1]
                    yield from (Message(job.name, value) for value in values[-2:-1])
            process.join()
            self.exit_code = process.exitcode or 0
            if self.exit_code:
                self.messages += values[-1:]
                yield from (Message(job.name, value) for value in values[-1:])
                yield Died(job.name, self.exit_code, "")
            else:
                yield Returned(job.name, values[-1], "")

    def stop(self, name: str) -> None:
        raise NotImplementedError

    def take_rest(self) -> list[EngineEvent]:
        return []


@dataclass(frozen=True)
class Desk:
    """A run, where it is stored, and what is known of its code and data."""

    tracker: MlflowTracker
    plan: Plan
    provenance: Mapping[str, str]
    data_dir: Path | None = None

    @property
    def run(self) -> PlannedRun:
        return self.plan.runs[0]

    @property
    def folder(self) -> Path:
        return locate_checkpoints(self.tracker.checkpoints, self.run.row.cell.id, 0).path

    @property
    def digests(self) -> tuple[str, str]:
        return self.provenance["code_digest"], self.provenance["data_digest"]

    def make_setup(self, engine: Engine) -> Setup:
        digests = {self.run.row.cell.id: self.digests}
        return Setup(self.plan.spec, self.tracker, engine, self.provenance, digests, self.data_dir)

    def execute(self, *, change: Callable[[], object] = lambda: None) -> tuple[Any, ...]:
        """The record and the messages of a process of its own; how it was killed where it was."""
        engine = ForkEngine(change)
        setup = self.make_setup(engine)
        with closing(Invocation(setup, "harness run", Rehearser(setup), is_to_do=lambda _: True)) as invocation:
            (*_, ended) = invocation.train([self.run])
        assert isinstance(ended, RunEnded)
        return engine.exit_code or ended.record, engine.messages

    def require_killed(self, change: Callable[[], object], number: signal.Signals = signal.SIGKILL) -> None:
        """Execute in a process that `change` lets a signal end."""
        end, _ = self.execute(change=change)
        assert end == -number, end.status_detail if isinstance(end, Record) else f"ended with {end}"

    def read_artifacts(self, record: Record) -> dict[str, Any]:
        """The tensors and arrays that a run has kept."""
        assert record.run_id is not None
        client = MlflowClient(self.tracker.store.uri)
        weights = torch.load(client.download_artifacts(record.run_id, "weights.pt"), weights_only=True)
        with np.load(client.download_artifacts(record.run_id, "predictions.npz")) as arrays:
            return {**{name: tensor.numpy() for name, tensor in weights.items()}, **dict(arrays)}


def work(sender: Any, job: Job, change: Callable[[], object]) -> None:
    """Execute a job; `change` is done to the process before."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as in `harness.engines.worker`: Ray leaves a handler behind
    torch.set_num_threads(1)
    checkpoints.SHARE = math.inf
    change()
    sender.send(job.function(sender.send, *job.args))


def kill_at(step: int, number: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """Send a signal to the process and all that it started, within a step counted from the beginning of the run."""

    def change() -> None:
        os.setsid()
        train_step = Training._train_step

        def train(training: Training, *batch: Any) -> float:
            if training.step == step:
                os.killpg(os.getpid(), number)
            return train_step(training, *batch)

        Training._train_step = train  # type: ignore[method-assign]

    return change


def end_in(seconds: float) -> None:
    """The kernel ends this process, wherever it is then."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def make_desk(spec: ExperimentSpec, tracker: MlflowTracker, data_dir: Path | None = None) -> Desk:
    tracker.prepare(spec.name)
    data = data_digest(spec.recipe.data, spec.recipe.training, data_dir=data_dir)
    provenance = {"code_digest": CODE, "data_digest": data, "device": "CPU"}
    return Desk(tracker, make_plan(spec), provenance, data_dir)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "images", train=60, val=10)


@pytest.fixture
def desk(tracker: MlflowTracker) -> Desk:
    return make_desk(make_spec(MEMORY, AUGMENTATION), tracker)


@pytest.fixture
def streamed(tracker: MlflowTracker, images: Path) -> Desk:
    return make_desk(make_spec(STREAM, CROPS).model_copy(update={"name": "streamed"}), tracker, images)


def computed(metrics: Mapping[str, float]) -> dict[str, float]:
    """Without what is measured."""
    measured = ("second", "memory", "attempts")
    return {name: value for name, value in metrics.items() if not any(part in name for part in measured)}


def require_equal(desk: Desk, found: Record, expected: Record) -> None:
    """Everything that a run computes and keeps, in its record and in the store."""
    assert (found.status, expected.status) == (RunStatus.OK, RunStatus.OK), found.status_detail
    assert computed(found.metrics) == computed(expected.metrics)
    assert [(epoch.epoch, epoch.step, computed(epoch.metrics)) for epoch in found.curve] == [
        (epoch.epoch, epoch.step, computed(epoch.metrics)) for epoch in expected.curve
    ]
    kept, wanted = desk.read_artifacts(found), desk.read_artifacts(expected)
    assert kept.keys() == wanted.keys()
    assert all(np.array_equal(kept[name], wanted[name]) for name in kept)


def require_one_complete_run(desk: Desk, record: Record) -> None:
    """The store has a single run, and each point of its curve once."""
    (stored,) = [found for found in desk.tracker.ledger([record.cell_id]) if "attempts" in found.metrics]
    assert (stored.run_id, stored.status) == (record.run_id, RunStatus.OK)
    client = MlflowClient(desk.tracker.store.uri)
    for name in ("train/loss", TASKS[record.task].measures[0].val, "train/seconds"):
        points = client.get_metric_history(record.run_id or "", name)
        assert [(point.step, point.value) for point in points] == [(e.epoch, e.metrics[name]) for e in record.curve]
    assert not desk.folder.exists()


def kill_in_test() -> None:
    """All epochs have ended by then."""
    evaluate, calls = Classification.evaluate, list[int]()

    def kill(*args: Any) -> Evaluation:
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return evaluate(*args)

    Classification.evaluate = kill  # type: ignore[method-assign]


@pytest.mark.slow
def test_a_run_that_is_killed_after_its_last_epoch_is_only_tested(desk: Desk) -> None:
    whole, _ = desk.execute()
    desk.require_killed(kill_in_test)
    record, messages = desk.execute()
    assert not [message for message in messages if isinstance(message, EpochMetrics)]
    require_one_complete_run(desk, record)
    require_equal(desk, record, whole)


@pytest.mark.parametrize(
    "step",
    [pytest.param(1, marks=pytest.mark.slow), 25, pytest.param(26, marks=pytest.mark.slow)],
    ids="step {}".format,
)
def test_a_run_that_is_killed_within_a_step_goes_on_bit_for_bit(desk: Desk, step: int) -> None:
    """Step 26 is the first of the last epoch."""
    whole, _ = desk.execute()
    desk.require_killed(kill_at(step))
    record, messages = desk.execute()
    (resumed,) = [message for message in messages if isinstance(message, Resumed)]
    assert (resumed.checkpoint.step, resumed.attempts) == (step, 2)
    assert record.metrics["attempts"] == 2
    assert 0 < record.metrics["seconds_lost"] < 60
    require_one_complete_run(desk, record)
    require_equal(desk, record, whole)


@pytest.mark.slow
def test_streamed_images_of_several_processes_go_on_too(streamed: Desk) -> None:
    whole, _ = streamed.execute()
    for step in (4, 9):
        streamed.require_killed(kill_at(step))
    record, messages = streamed.execute()
    assert [m.checkpoint.step for m in messages if isinstance(m, Resumed)] == [9]
    assert record.metrics["attempts"] == 3
    require_equal(streamed, record, whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["desk", "streamed"])
def test_sigterm_ends_a_run_after_a_checkpoint_at_the_next_step(name: str, request: pytest.FixtureRequest) -> None:
    """Also where it is sent to the processes that load images."""
    desk: Desk = request.getfixturevalue(name)
    whole, _ = desk.execute()

    def change() -> None:
        checkpoints.Checkpoints._is_due = lambda *_, **__: False  # type: ignore[method-assign]
        kill_at(4, signal.SIGTERM)()

    desk.require_killed(change, signal.SIGTERM)
    record, messages = desk.execute()
    assert [m.checkpoint.step for m in messages if isinstance(m, Resumed)] == [5]
    require_equal(desk, record, whole)


def damage_newest(folder: Path, count: int) -> None:
    for path in sorted(folder.glob("*.pt"), key=lambda path: int(path.stem.split("-")[0]))[-count:]:
        path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.slow
@pytest.mark.parametrize(("count", "step"), [(1, 19), (2, None)], ids=["newest", "both"])
def test_a_run_goes_on_from_what_is_not_damaged(desk: Desk, count: int, step: int | None) -> None:
    whole, _ = desk.execute()
    desk.require_killed(kill_at(20))
    damage_newest(desk.folder, count)
    record, messages = desk.execute()
    assert [m.checkpoint.step for m in messages if isinstance(m, Resumed)] == ([] if step is None else [step])
    assert sum("is damaged" in m.text for m in messages if isinstance(m, Warned)) == count
    require_equal(desk, record, whole)


def end_at_once() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_without_checkpoints_stays_one_run_after_attempts_that_never_began(desk: Desk) -> None:
    """What the process of a run alone knows of its place is not forgotten by an attempt that ends before it tells."""
    for change in (end_at_once, kill_at(20), end_at_once):
        desk.require_killed(change)
    shutil.rmtree(desk.folder)
    record, _ = desk.execute()
    (stored,) = desk.tracker.ledger([record.cell_id])
    assert (stored.run_id, stored.status) == (record.run_id, RunStatus.OK)


@pytest.mark.slow
def test_an_epoch_that_is_trained_twice_is_in_the_curve_once(desk: Desk) -> None:
    """The checkpoint of the epoch's end is damaged, and the store has the epoch."""
    after_step = checkpoints.Checkpoints._after_step

    def change() -> None:
        kill_at(14)()
        checkpoints.Checkpoints._after_step = lambda self, training: (  # type: ignore[method-assign]
            after_step(self, training) if training.step == 10 else None
        )

    desk.require_killed(change)
    (desk.folder / "13-1.pt").write_bytes(b"")
    record, messages = desk.execute()
    assert [m.checkpoint.step for m in messages if isinstance(m, Resumed)] == [10]
    points = MlflowClient(desk.tracker.store.uri).get_metric_history(record.run_id, "train/loss")
    assert [point.step for point in points] == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "value"),
    [("code_digest", "other"), pytest.param("torch", "1.0", marks=pytest.mark.slow)],
    ids=["other code", "another environment"],
)
def test_a_checkpoint_of_something_else_is_not_continued(desk: Desk, name: str, value: str) -> None:
    desk.require_killed(kill_at(20))
    changed = replace(desk, provenance={**desk.provenance, name: value})
    record, messages = changed.execute()
    assert not [message for message in messages if isinstance(message, Resumed)]
    assert [m.text for m in messages if isinstance(m, Warned)] == [
        f"the checkpoint in {desk.folder} was made with another {name}; the run starts from the beginning"
    ]
    assert "attempts" not in record.metrics
    assert record.status == RunStatus.OK


def test_a_full_disk_is_reported_once_and_ends_no_run(desk: Desk) -> None:
    def change() -> None:
        def fail(_descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        os.fsync = fail

    record, messages = desk.execute(change=change)
    assert record.status == RunStatus.OK
    (warned,) = [message.text for message in messages if isinstance(message, Warned)]
    assert warned == f"no checkpoint can be written to {desk.folder}: No space left on device; training continues"


def test_checkpoints_are_kept_where_the_recipe_says_so(tracker: MlflowTracker) -> None:
    spec = make_spec(MEMORY, AUGMENTATION)
    recipe = spec.recipe.model_copy(update={"keep_checkpoint": True})
    desk = make_desk(spec.model_copy(update={"recipe": recipe}), tracker)
    record, _ = desk.execute()
    assert record.status == RunStatus.OK
    assert not desk.folder.exists()
    kept = CheckpointFolder(tracker.checkpoints / record.run_id).find()
    assert kept is not None
    assert (kept.step, kept.epoch, kept.curve) == (39, 3, record.curve)


def test_checkpoints_take_no_more_than_their_share_of_the_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of milliseconds have no checkpoint each."""
    written = list[int]()
    write = checkpoints.Checkpoints._write

    def count(self: checkpoints.Checkpoints, training: Training, *rest: Any) -> None:
        written.append(training.step)
        write(self, training, *rest)

    monkeypatch.setattr(checkpoints.Checkpoints, "_write", count)
    monkeypatch.setattr(checkpoints.Checkpoints, "_cost", math.inf, raising=False)
    context = desk.make_setup(ForkEngine(lambda: None)).make_context(desk.run, run_id="mine")
    assert run_cell(lambda _message: None, desk.run, context).status == RunStatus.OK
    assert 1 <= len(written) < 39


def test_a_ledger_tells_where_a_run_would_go_on(desk: Desk) -> None:
    desk.require_killed(kill_at(30))
    (entry,) = read_ledger(desk.plan, desk.tracker, {desk.run.row.cell.id: desk.digests})
    assert entry.standing == Standing.RESUMABLE
    assert entry.checkpoint is not None
    assert (entry.checkpoint.epoch, entry.checkpoint.step) == (2, 30)
    (entry,) = read_ledger(desk.plan, desk.tracker, {desk.run.row.cell.id: ("other", desk.digests[1])})
    assert (entry.standing, entry.checkpoint) == (Standing.TO_DO, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["desk", "streamed"])
def test_a_run_that_is_killed_at_many_instants_goes_on_bit_for_bit(name: str, request: pytest.FixtureRequest) -> None:
    """Within writes, steps, validations and tests, as it comes."""
    desk: Desk = request.getfixturevalue(name)
    start = time.monotonic()
    whole, _ = desk.execute()
    seconds = time.monotonic() - start
    draw, kills, end = random.Random(0), 0, time.monotonic() + 60
    while not isinstance(outcome := desk.execute(change=partial(end_in, draw.uniform(0.05, 0.5) * seconds))[0], Record):
        kills += 1
        if time.monotonic() > end:
            outcome, _ = desk.execute()
            break
    assert kills
    require_equal(desk, outcome, whole)
