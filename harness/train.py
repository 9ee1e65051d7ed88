"""The training loop, in plain torch with timm's parts."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from harness.batch import Batch, Targets, take_images
from harness.data import Data
from harness.division import list_positions
from harness.errors import Cause, Diverged
from harness.optim import build_optimizer, build_scheduler, make_schedule
from harness.ranks import Ranks
from harness.record import EpochMetrics
from harness.seeding import seed_for
from harness.spec import TrainingSpec
from harness.tasks import Evaluation, Task

EMA_SHARE = 9.0
"""After t steps the moving average reaches back over about t / 9 of them, until its decay is the recipe's: an average
that still holds initial weights would be taken for a model that has learned nothing."""


@dataclass
class _TrainedEpoch:
    """What the training steps of one epoch have measured so far.

    Attributes:
        losses: of each step.
        start: when the epoch would have begun on `perf_counter` without interruptions.
    """

    losses: list[float] = field(default_factory=list)
    num_images: int = 0
    start: float = field(default_factory=perf_counter)

    def to_metrics(self) -> dict[str, float]:
        seconds = perf_counter() - self.start
        return {
            "train/loss": math.fsum(self.losses) / len(self.losses),
            "train/seconds": seconds,
            "train/images_per_second": self.num_images / seconds,
        }


class Training:
    """A model in training; iterating trains it, one `EpochMetrics` an epoch.

    Every gradient, loss and, at an epoch's end, weight is checked to be finite.

    Several ranks train one model, each on its part of every batch. A gradient is the mean over the whole batch, and
    what follows from it (clipping, steps, moving average) is equal on all ranks, as are losses, scores and divergences.
    Two things depend on their number: rounding, and random streams in the model (drop path, dropout), of which each
    rank has its own. Batch norm uses the statistics of a micro-batch, on GPUs of those of all ranks; its running
    statistics are those of rank 0.

    Args:
        data: of one of several ranks: its part.
        epochs: those that are trained, each as if all before it had been; None: all.

    Between two steps, and where an epoch has ended, `state_dict` has all that decides what follows. A training of the
    same code, environment and arguments that loads it goes on bit for bit.

    Attributes:
        num_validated: images of the last validation; 0 before.
        after_step: called after every optimizer step.

    Raises:
        Diverged: from the iteration, at the step where it was seen.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        training: TrainingSpec,
        *,
        task: Task,
        replicate: int,
        ranks: Ranks,
        epochs: Sequence[int] | None = None,
    ) -> None:
        self.data, self.spec, self.task, self.replicate = data, training, task, replicate
        self.ranks, self.device = ranks, ranks.device
        self.model = model.to(self.device)
        self.objective = task.build_objective(self.model, training, self.device)
        self._distributed = _distribute(self.objective) if ranks.world_size > 1 else None
        if training.ema_decay is not None:
            self.objective.setup_ema(
                decay=training.ema_decay, use_warmup=training.ema_decay < 1, warmup_gamma=EMA_SHARE, warmup_power=1.0
            )
        self.schedule = make_schedule(training, data.steps_per_epoch)
        self.epochs = range(1, self.schedule.epochs + 1) if epochs is None else epochs
        self.optimizer = build_optimizer(self.model, training)
        self.scheduler = build_scheduler(self.optimizer, self.schedule)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=training.precision == "float16")
        self.step = 0
        self.num_validated = 0
        self.after_step: Callable[[], None] = lambda: None
        self._trained = _TrainedEpoch()
        self._random: list[Tensor] = []

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that validation and test measure: the moving average where the recipe asks for one."""
        return self.objective.trainable_module_ema.module if self.objective.has_ema() else self.model

    def __iter__(self) -> Iterator[EpochMetrics]:
        """Train epoch by epoch."""
        for epoch in self.epochs:
            if self._random:
                self._restore_random_state()
            else:
                self._seek_epoch(epoch)
                torch.manual_seed(seed_for("drop_path", self.replicate, epoch, *self.ranks.identity))
                self._trained = _TrainedEpoch()
            trained = self._train_epoch(epoch)
            self._check_weights()
            self.ranks.copy_from_first([*self.model.buffers(), *self.evaluated_model.buffers()])
            start = perf_counter()
            validated = self.task.evaluate(self.evaluated_model, self.data.val_batches(), self.ranks)
            seconds = perf_counter() - start
            self._check_validation(validated)
            self.num_validated = validated.num_images
            metrics = {
                **trained,
                **self.data.metrics,
                "train/lr": self.optimizer.param_groups[0]["lr"],
                **{f"val/{name}": score for name, score in validated.scores.items()},
                "val/seconds": seconds,
            }
            self._trained = _TrainedEpoch()
            yield EpochMetrics(epoch, self.step, metrics)

    def state_dict(self) -> dict[str, Any]:
        """Weights, moving average, optimizer, scaler, random state of every rank and position; tensors are not copied.

        Every rank must call it; the state of rank 0 is that of all.
        """
        cuda = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        return {
            "model": self.model.state_dict(),
            "average": self.evaluated_model.state_dict() if self.objective.has_ema() else {},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "num_validated": self.num_validated,
            "losses": self._trained.losses,
            "num_images": self._trained.num_images,
            "seconds": perf_counter() - self._trained.start,
            "random": self.ranks.gather([torch.get_rng_state(), *cuda]),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was called; before the iteration begins."""
        self.model.load_state_dict(state["model"])
        if self.objective.has_ema():
            self.evaluated_model.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.num_validated = state["step"], state["num_validated"]
        trained = list(state["losses"])
        ended = (self.step - len(trained)) // self.schedule.steps_per_epoch
        self.epochs = [epoch for epoch in self.epochs if epoch > ended]
        if trained:
            self._trained = _TrainedEpoch(trained, state["num_images"], perf_counter() - state["seconds"])
            self._random = state["random"][self.ranks.rank]

    def _restore_random_state(self) -> None:
        """Where an epoch goes on: not earlier, since whatever happens before may draw from the same generators."""
        torch.set_rng_state(self._random[0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(self._random[1], self.device)
        self._random = []

    def _seek_epoch(self, epoch: int) -> None:
        """Stand at the beginning of an epoch, where training in order already is."""
        first = (epoch - 1) * self.schedule.steps_per_epoch
        if first != self.step:
            self.step = first
            self.scheduler.step_update(self.schedule.place(first))

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        self.model.train()
        trained = self._trained
        for images, targets in self.data.train_batches(epoch, len(trained.losses)):
            trained.losses.append(self._train_step(images, targets))
            trained.num_images += int(self.ranks.sum(len(images)))
            self.after_step()
        return trained.to_metrics()

    def _train_step(self, images: Tensor, targets: Targets) -> float:
        self.optimizer.zero_grad()
        loss = self._compute_gradients((images, targets))
        self.scaler.unscale_(self.optimizer)
        norm = get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None], foreach=True)
        value = self._check_step(loss, norm)
        if self.spec.clip_grad is not None:
            clip_grads_with_norm_(self.model.parameters(), self.spec.clip_grad, norm, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self.scheduler.step_update(self.schedule.place(self.step))
        self.objective.update_ema(self.step)
        return value

    def _compute_gradients(self, batch: Batch) -> Tensor:
        """Compute the gradients of the whole batch's mean loss; return what this rank's images contribute to it."""
        num_images, precision = self.ranks.sum(len(batch[0])), self.spec.precision
        forward, loss = self._distributed or self.objective, torch.zeros((), device=self.device)
        micro_batches = _split(batch, self.ranks.accumulation)
        for number, (images, targets) in enumerate(micro_batches, start=1):
            share = len(images) / num_images
            with self._exchanging_gradients(number == len(micro_batches)):
                with torch.autocast(self.device.type, dtype=getattr(torch, precision), enabled=precision != "float32"):
                    part = forward(images, targets)["loss"] * share
                self.scaler.scale(part * self.ranks.world_size).backward()  # DistributedDataParallel takes the mean
            loss = loss + part.detach().float()
        return loss

    def _exchanging_gradients(self, is_last: bool) -> AbstractContextManager[None]:
        """Of several ranks, inside of the last backward pass of a step alone."""
        return nullcontext() if self._distributed is None or is_last else self._distributed.no_sync()

    def _check_step(self, loss: Tensor, norm: Tensor) -> float:
        """The loss as a number, once it and the gradients are known to be finite; one transfer from the device."""
        own, norm_value = map(float, torch.stack((loss, norm.float())).tolist())
        value = self.ranks.sum(own)
        if not math.isfinite(value):
            raise Diverged(f"the training loss is {value}", step=self.step, cause=Cause.LOSS)
        if not math.isfinite(norm_value) and not self._scale_overflowed():
            gradients = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
            module = find_module(gradients) or ""
            reason = f"the norm of the gradients is {norm_value}"
            raise Diverged(reason, step=self.step, cause=Cause.GRADIENT, module=module)
        return value

    def _scale_overflowed(self) -> bool:
        """Whether loss scaling explains a gradient that is not finite: the scaler skips such a step and halves."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1

    def _check_weights(self) -> None:
        module = find_module(dict(self.model.named_parameters()))
        if module is not None:
            raise Diverged("a weight is not finite", step=self.step - 1, cause=Cause.WEIGHT, module=module)

    def _check_validation(self, validated: Evaluation) -> None:
        for name, score in validated.scores.items():
            if not math.isfinite(score):
                raise Diverged(f"the validation {name} is {score}", step=self.step - 1, cause=Cause.VALIDATION)


def _distribute(objective: nn.Module) -> DistributedDataParallel:
    """Looks for unused parameters in every step, since a model may have some, such as heads that no loss uses.

    Then the buckets of gradients are never rebuilt. Their layout decides in which order gradients are added, so that a
    run that continues, which would begin with new ones, rounds as the undisturbed one does.
    """
    return DistributedDataParallel(objective, find_unused_parameters=True, gradient_as_bucket_view=True)


def _split(batch: Batch, num_parts: int) -> list[Batch]:
    """Micro-batches of a rank's part of a batch."""
    if num_parts == 1:
        return [batch]
    parts = (list_positions(len(batch[0]), part=part, num_parts=num_parts) for part in range(num_parts))
    return [take_images(batch, positions) for positions in parts]


def find_module(tensors: Mapping[str, Tensor]) -> str | None:
    """The module of the first tensor that is not finite, by the names of its parameters; None where all are finite."""
    found = (name.rpartition(".")[0] for name, tensor in tensors.items() if not bool(tensor.isfinite().all()))
    return next(found, None)
