"""Optimizer and learning-rate schedule. Durations are converted to optimizer steps here."""

from dataclasses import dataclass
from typing import Any

from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from harness.spec import TrainingSpec

FUSED = ("adam", "adamw", "sgd")
"""Optimizers that torch computes in one kernel."""


@dataclass(frozen=True)
class Schedule:
    """A recipe's durations in optimizer steps, and its learning rates.

    Attributes:
        epochs: all of them, with the cool-down.
        interval: steps after which the learning rate changes.
        cosine_steps: warm-up and cosine decay; as in timm, the cosine starts at step 0 and warm-up hides its beginning.
    """

    epochs: int
    steps_per_epoch: int
    interval: int
    warmup_steps: int
    cosine_steps: int
    cooldown_steps: int
    warmup_lr: float
    peak_lr: float
    min_lr: float

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.cosine_steps + self.cooldown_steps

    def place(self, step: int) -> int:
        """The step whose learning rate holds after `step` steps."""
        return step // self.interval * self.interval


def peak_lr(training: TrainingSpec) -> float:
    """The learning rate at the end of warm-up: scaled by the batch where the recipe says for which batch it is."""
    return training.lr * _find_scale(training)


def _find_scale(training: TrainingSpec) -> float:
    """Of all learning rates alike, so that their order does not depend on the batch."""
    return 1.0 if training.lr_base_size is None else training.batch_size / training.lr_base_size


def make_schedule(training: TrainingSpec, steps_per_epoch: int) -> Schedule:
    """Make the learning-rate schedule of a training, in steps."""
    scale = _find_scale(training)
    return Schedule(
        epochs=training.total_epochs,
        steps_per_epoch=steps_per_epoch,
        interval=steps_per_epoch if training.schedule_unit == "epoch" else 1,
        warmup_steps=round(training.warmup_epochs * steps_per_epoch),
        cosine_steps=training.epochs * steps_per_epoch,
        cooldown_steps=training.cooldown_epochs * steps_per_epoch,
        warmup_lr=training.warmup_lr * scale,
        peak_lr=peak_lr(training),
        min_lr=training.min_lr * scale,
    )


def build_optimizer(model: nn.Module, training: TrainingSpec) -> Optimizer:
    """The optimizer of this name in timm.

    Biases, norms and scalars are not decayed, nor are position tables unless the recipe's `position_decay` says so. An
    optimizer for matrices (timm's `muon`) trains the weights of linear layers and convolutions, and what a module
    declares to be a matrix. It leaves the rest (biases, norms, tables, scalars, position embeddings, class tokens,
    parameters without a declaration) to its fallback, AdamW.
    """
    kinds = _find_kinds(model)
    tables, scalars, unknown = (
        {name for name, kind in kinds.items() if kind == one} for one in ("table", "scalar", "")
    )
    declared = set(getattr(model, "no_weight_decay", set)()) | scalars
    groups = param_groups_weight_decay(
        model,
        training.weight_decay,
        no_weight_decay_list=declared - tables if training.position_decay else declared | tables,
        fallback_list=declared | tables | unknown,
    )
    options: dict[str, Any] = {"fused": True} if training.opt in FUSED else {}
    return create_optimizer_v2(groups, opt=training.opt, lr=peak_lr(training), **options)


def build_scheduler(optimizer: Optimizer, schedule: Schedule) -> Scheduler:
    """A cosine with warm-up and cool-down; call `step_update(schedule.place(steps_done))` after every step."""
    scheduler: Scheduler
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=schedule.cosine_steps,
        warmup_epochs=schedule.warmup_steps,
        cooldown_epochs=schedule.cooldown_steps,
        warmup_lr=schedule.warmup_lr,
        min_lr=schedule.min_lr,
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    return scheduler


def _find_kinds(model: nn.Module) -> dict[str, str]:
    """Of each parameter with two axes or more: `matrix`, `table`, `scalar`, or nothing where its module does not say.

    A module declares the kinds of its own parameters by name in `parameter_kinds`, or by `is_position_table` that all
    are tables. The layers of torch and timm hold matrices; of position embeddings timm says it in `no_weight_decay`.
    """
    kinds = {}
    for path, module in model.named_modules():
        default = "table" if getattr(module, "is_position_table", False) else "matrix" if _is_known(module) else ""
        declared = getattr(module, "parameter_kinds", {})
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim > 1:
                kinds[f"{path}.{name}".lstrip(".")] = declared.get(name, default)
    return kinds


def _is_known(module: nn.Module) -> bool:
    """Whether a module is a linear layer, a convolution, or any other layer of torch or timm."""
    own = type(module).__module__.partition(".")[0] not in ("torch", "timm")
    return not own or isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
