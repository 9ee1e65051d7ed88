"""What a task is: the head, the loss, the scores and the measures of a model. Imports no torch: plans read measures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.errors import SpecError
from harness.measure import Measure
from harness.spec import DataSpec, FrameworkSpec, TrainingSpec

if TYPE_CHECKING:
    import torch
    from timm.task import TrainingTask
    from torch import nn

    from harness.batch import LabelledBatch
    from harness.ranks import Ranks


LABELS = "one label for each image"
OBJECTS = "objects in each image"
"""What a dataset knows of its images, and a task needs to know."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model on a set of images.

    Attributes:
        scores: by name: every measure of the task, and what else is worth a metric (`loss`).
        per_image: arrays with one entry per image, which a run keeps in `predictions.npz`.
    """

    scores: Mapping[str, float]
    per_image: Mapping[str, NDArray[np.generic]]

    @property
    def num_images(self) -> int:
        """How many images were evaluated."""
        return len(next(iter(self.per_image.values())))


class Task(ABC):
    """What a model is trained and scored on; a subclass imports torch where it is needed, not before.

    The defaults suit a task without classes. `measures` lists the task's measures; the first one decides unless an
    experiment names another.
    """

    measures: ClassVar[tuple[Measure, ...]]

    frameworks: ClassVar[tuple[str, ...]] = ()
    """The names of what it can put on a backbone, one of which every row needs; none: the backbone's own head."""

    backbone_arguments: ClassVar[Mapping[str, Any]] = {}
    """Further arguments of the backbone's constructor, by timm's names."""

    truth: ClassVar[str] = LABELS
    """What it needs to know of the images: `LABELS` or `OBJECTS`."""

    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    """Modules that not every installation has, and the extra that installs them."""

    quality: ClassVar[str] = "score"
    """What titles of figures call the measure: `Validation score by epoch`."""

    chance_rule: ClassVar[str] = "no better than the chance level"
    ceiling_rule: ClassVar[str] = "the best possible score"
    """What the marks of a table say of both tests."""

    @abstractmethod
    def count_outputs(self, data: DataSpec) -> int:
        """How many numbers the head of a model has."""

    def build_model(self, backbone: nn.Module, _data: DataSpec, _framework: FrameworkSpec | None) -> nn.Module:
        """What is trained; the backbone with its own head by default."""
        return backbone

    def make_rule(self, rule: Callable[[nn.Module, str], None]) -> Callable[[nn.Module, str], None]:
        """How the parameters of a module with this path in the model are drawn; `rule` is that of the backbone.

        Those of its children are drawn by themselves.
        """
        return rule

    @abstractmethod
    def build_objective(self, model: nn.Module, training: TrainingSpec, device: torch.device) -> TrainingTask:
        """The forward pass of `model` with its loss: called with images and targets, it returns `loss`.

        The loss is a mean over the images: that of a batch is put together from the losses of its parts.
        """

    @abstractmethod
    def evaluate(self, model: nn.Module, batches: Iterable[LabelledBatch], ranks: Ranks) -> Evaluation:
        """Score `model`, which is left in eval mode.

        A run of several processes gives each rank every so many batches: `ranks.gather_batches` returns what all ranks
        have computed, in the order of the images. Every rank must return the same scores.
        """

    def score_images(self, _per_image: Mapping[str, NDArray[np.generic]]) -> Mapping[str, NDArray[np.float64]]:
        """The score of each image by measure, from what is kept of it, where the score of a run is their mean.

        The noise of the test images is estimated from it. Measures that are no such mean, or do not follow from what is
        kept, are left out.
        """
        return {}

    def score(self, per_image: Mapping[str, NDArray[np.generic]]) -> Mapping[str, float]:
        """The scores of a run by measure, as far as what is kept of its images gives them: to verify it."""
        return {name: float(scores.mean()) for name, scores in self.score_images(per_image).items()}

    def check_training(self, training: TrainingSpec) -> None:
        """Refuse what the loss would ignore.

        Raises:
            ValueError: the message names the field.
        """
        fields: dict[str, Any] = {
            "smoothing": training.smoothing,
            "token_labels": training.token_labels,
            "augmentation.mixup": training.augmentation.mixup,
            "augmentation.cutmix": training.augmentation.cutmix,
        }
        for name, value in fields.items():
            if value:
                raise ValueError(f"training.{name} needs a task with classes, got {value!r}")

    def check_packages(self) -> None:
        """Find out before any run whether the packages that the task needs are installed.

        Raises:
            SpecError: one is not; the message says how to install it.
        """
        missing = [package for package in self.packages if find_spec(package) is None]
        if missing:
            raise SpecError(f"this task needs {', '.join(missing)}: pip install 'elsa-ablation[{self.extra}]'")

    def find_chance(self, measure: Measure, _data: DataSpec) -> float | None:
        """The value of a model that guesses on these images."""
        return measure.chance

    def explain_chance(self, measure: Measure, value: float, num_images: int) -> str:
        """Why a validation looks like guessing, in words; empty where something was learned.

        `measure.chance` is not None.
        """
        assert measure.chance is not None
        if measure.sign * value > measure.sign * measure.chance:
            return ""
        return (
            f"{measure.show(value)} on {num_images:,} validation images, guessing gets {measure.show(measure.chance)}"
        )

    def is_at_ceiling(self, measure: Measure, value: float, _num_images: int) -> bool:
        """Whether a score on the test images is so close to the best possible one that differences cannot show."""
        return measure.ceiling is not None and measure.sign * value >= measure.sign * measure.ceiling
