"""Token labeling (arXiv:2104.10858): the loss of an image and of its tokens, as one of timm's tasks."""

from typing import Protocol, cast

import torch
from timm.task import TrainingTask
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from harness.batch import Box, Targets, TokenTargets


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
