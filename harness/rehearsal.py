"""Rehearses a cell: a short run through the code of a whole one, with a trace of all that it computes.

A rehearsal visits at most 16 epochs that span the schedule, two optimizer steps each, and validates and tests on some
images. A run that is no longer itself (`harness.trace.is_short`) is its own rehearsal. A run of several processes is
rehearsed by as many; the trace is that of rank 0, with the digests of its part of each batch.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.batch import Batch, LabelledBatch
from harness.cell import Cell
from harness.data import Data
from harness.data.family import UNREADABLE
from harness.errors import Diverged
from harness.optim import Schedule, build_optimizer, build_scheduler, make_schedule
from harness.record import EpochMetrics
from harness.spec import TrainingSpec
from harness.tasks import Evaluation
from harness.trace import is_short
from harness.train import Training

MAX_EPOCHS = 16
STEPS_PER_EPOCH = 2
VAL_IMAGES, TEST_IMAGES = 128, 256
"""Of each validation, and of the test."""

NOT_COMPUTED = ("train/seconds", "train/images_per_second", "val/seconds", UNREADABLE)
"""Metrics of an epoch that are measured, not computed: loading processes find unreadable images ahead of the visit."""


@dataclass(frozen=True)
class Visit:
    """Which part of a run is executed; None: all."""

    epochs: tuple[int, ...] | None = None
    steps: int | None = None
    val_images: int | None = None
    test_images: int | None = None


def plan_visit(cell: Cell) -> Visit:
    """The part that a rehearsal of a cell executes."""
    if is_short(cell):
        return Visit()
    return Visit(choose_epochs(cell.training), STEPS_PER_EPOCH, VAL_IMAGES, TEST_IMAGES)


def choose_epochs(training: TrainingSpec) -> tuple[int, ...]:
    """All epochs, or 16: the first, those around the ends of warm-up and cosine, the last, and some between."""
    total = training.total_epochs
    if total <= MAX_EPOCHS:
        return tuple(range(1, total + 1))
    warm = min(total, int(training.warmup_epochs) + 1)
    chosen = {1, warm, min(total, warm + 1), training.epochs, min(total, training.epochs + 1), total}
    spread = np.linspace(1, total, MAX_EPOCHS).round().astype(int).tolist()
    for epoch in sorted(spread, key=lambda epoch: -min(abs(epoch - known) for known in chosen)):
        if len(chosen) < MAX_EPOCHS:
            chosen.add(epoch)
    return tuple(sorted(chosen))


class VisitedData:
    """The `Data` of a run, as much of it as is visited, that remembers digests and times of its batches.

    Attributes:
        batches: of each visited epoch, a digest of every batch.
        evaluated: a digest of all images of the first validation and of the test.
        seconds: of each visited epoch, from its start or the end of the step before to the end of each step.
    """

    def __init__(self, data: Data, visit: Visit) -> None:
        self._data, self._visit = data, visit
        self.digest, self.num_classes = data.digest, data.num_classes
        self.num_train, self.num_val, self.num_test = data.num_train, data.num_val, data.num_test
        self.steps_per_epoch = data.steps_per_epoch
        self.batches: dict[int, list[str]] = {}
        self.evaluated: dict[str, str] = {}
        self.seconds: dict[int, list[float]] = {}

    @property
    def metrics(self) -> Mapping[str, float]:
        """Those of the data."""
        return self._data.metrics

    def train_batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The first batches of an epoch, from number `first` on."""
        digests, seconds = self.batches.setdefault(epoch, []), self.seconds.setdefault(epoch, [])
        start = perf_counter()
        for batch in islice(self._data.train_batches(epoch, first), self._visit.steps):
            digests.append(digest_tensors(_list_tensors(batch)))
            yield batch
            now = perf_counter()
            seconds.append(now - start)
            start = now

    def val_batches(self) -> Iterator[LabelledBatch]:
        """The first validation images."""
        return self._evaluate("val", self._data.val_batches(), self._visit.val_images)

    def test_batches(self) -> Iterator[LabelledBatch]:
        """The first test images."""
        return self._evaluate("test", self._data.test_batches(), self._visit.test_images)

    def _evaluate(self, split: str, batches: Iterable[LabelledBatch], most: int | None) -> Iterator[LabelledBatch]:
        digest, left = hashlib.sha256(), most
        for images, labels in batches:
            batch = images[:left], labels[:left]
            left = None if left is None else left - len(batch[1])
            digest.update(digest_tensors(_list_tensors(batch)).encode())
            yield batch
            if left == 0:
                break
        self.evaluated.setdefault(split, digest.hexdigest()[:16])


class Trace:
    """Collects what a training computes, in JSON's types, without a measured number.

    Create it before the first step; iterate over the training inside of `follow`.
    """

    def __init__(self, training: Training, data: VisitedData) -> None:
        self._training, self._data = training, data
        self._content: dict[str, Any] = {
            "steps": [training.schedule.epochs, data.steps_per_epoch, training.spec.batch_size],
            "images": [data.num_train, data.num_val, data.num_test],
            "initial": digest_state(training.model),
            "optimizer": describe_optimizer(training.optimizer, training.model),
            "learning_rates": list_learning_rates(training.model, training.spec, data.steps_per_epoch),
            "average": training.objective.has_ema(),
        }
        self._epochs: dict[str, dict[str, float]] = {}

    def follow(self) -> Iterator[EpochMetrics]:
        """The epochs of the training as they end."""
        try:
            for epoch in self._training:
                computed = {name: value for name, value in epoch.metrics.items() if name not in NOT_COMPUTED}
                self._epochs[str(epoch.epoch)] = computed
                yield epoch
        except Diverged as error:
            self._content["diverged"] = [error.cause, error.module, error.step]
            raise

    def to_content(self, tested: Evaluation | None = None) -> dict[str, Any]:
        """The trace of what has been computed so far."""
        return {
            **self._content,
            "batches": {str(epoch): digests for epoch, digests in self._data.batches.items()},
            "evaluated": self._data.evaluated,
            "epochs": self._epochs,
            "final": digest_state(self._training.model),
            "final_average": digest_state(self._training.evaluated_model) if self._content["average"] else {},
            "test": {} if tested is None else dict(tested.scores),
        }


def forecast_seconds(
    training: Training, data: VisitedData, *, prepared: float, validation: float, test: float
) -> float:
    """What a whole run takes.

    Args:
        training: that was rehearsed.
        data: of it.
        prepared: seconds until the first epoch.
        validation: of one validation image.
        test: of one test image.
    """
    first = median(seconds[0] for seconds in data.seconds.values())
    later = median(seconds[-1] for seconds in data.seconds.values())
    epoch = first + (data.steps_per_epoch - 1) * later + data.num_val * validation
    return prepared + training.schedule.epochs * epoch + data.num_test * test


def list_learning_rates(model: nn.Module, training: TrainingSpec, steps_per_epoch: int) -> list[list[float]]:
    """Of every epoch the learning rate of each group of parameters at the first and the last step."""
    schedule = make_schedule(training, steps_per_epoch)
    optimizer = build_optimizer(model, training)
    scheduler = build_scheduler(optimizer, schedule)
    found = []
    for step in _list_ends(schedule):
        scheduler.step_update(schedule.place(step))
        found.append([float(group["lr"]) for group in optimizer.param_groups])
    return found


def _list_ends(schedule: Schedule) -> Iterator[int]:
    for epoch in range(schedule.epochs):
        yield epoch * schedule.steps_per_epoch
        yield (epoch + 1) * schedule.steps_per_epoch - 1


def describe_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    """Its kind, and the settings of each group of parameters with their names."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [
        {
            "settings": {key: _to_plain(value) for key, value in group.items() if key != "params"},
            "parameters": sorted(names[id(parameter)] for parameter in group["params"]),
        }
        for group in optimizer.param_groups
    ]
    return {"name": type(optimizer).__name__, "groups": groups}


def _to_plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else repr(value)


def digest_state(module: nn.Module) -> dict[str, list[Any]]:
    """Shape and digest of every parameter and buffer, by name."""
    return {name: [list(tensor.shape), digest_tensors([tensor])] for name, tensor in module.state_dict().items()}


def digest_tensors(tensors: Iterable[Tensor]) -> str:
    """Sixteen hexadecimal digits of types, shapes and every bit."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _list_tensors(batch: Any) -> list[Tensor]:
    """All tensors of nested tuples, numbers beside them too."""
    if isinstance(batch, Tensor):
        return [batch]
    if isinstance(batch, Sequence):
        return [tensor for part in batch for tensor in _list_tensors(part)]
    return [torch.tensor(batch)]
