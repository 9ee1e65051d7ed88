"""The training loss of a batch, for labels and for labels of tokens, as one of timm's tasks."""

from typing import Protocol, cast

import torch
from timm.task import ClassificationTask, TrainingTask
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from harness.data.batch import Box, Targets, TokenTargets
from harness.data.checks import mixes_images
from harness.spec import TrainingSpec


class TokenClassifier(Protocol):
    """A model with a head over all tokens."""

    def classify_tokens(self, images: Tensor, box: Box) -> tuple[Tensor, Tensor]:
        """Logits of mixed images, (batch, classes), and of their tokens, (batch, rows, columns, classes)."""
        ...


class TokenLabelingTask(TrainingTask):
    """Token labeling (arXiv:2104.10858, Eq. 4): the loss of the image, plus `weight` times the mean of its tokens'."""

    def __init__(self, model: nn.Module, *, weight: float, device: torch.device) -> None:
        super().__init__(device=device, verbose=False)
        self.trainable_module, self.weight = model, weight

    def forward(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """`loss`, and the logits of the images as `output`."""
        assert isinstance(targets, TokenTargets)
        logits, token_logits = cast("TokenClassifier", self.trainable_module).classify_tokens(images, targets.box)
        of_tokens = cross_entropy(token_logits.flatten(0, 2), targets.tokens.flatten(0, 2))
        return {"loss": cross_entropy(logits, targets.image) + self.weight * of_tokens, "output": logits}


def build_task(model: nn.Module, training: TrainingSpec, device: torch.device) -> TrainingTask:
    """The task that a recipe asks for."""
    if training.token_labels is not None:
        return TokenLabelingTask(model, weight=training.token_labels.weight, device=device)
    return ClassificationTask(
        model,
        criterion_kwargs={"smoothing": training.smoothing, "soft_targets": mixes_images(training.augmentation)},
        device=device,
        verbose=False,
    )
