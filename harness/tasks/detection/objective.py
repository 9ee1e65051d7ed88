"""The loss of a detector, as one of timm's tasks."""

import torch
from timm.task import TrainingTask
from torch import Tensor, nn

from harness.batch import Targets, TokenTargets


class DetectionTask(TrainingTask):
    """The sum of all losses that a detector has in training.

    Each is a mean over the regions or anchors that were drawn in the images; a batch that is computed in parts has the
    mean of theirs.
    """

    def __init__(self, model: nn.Module, *, device: torch.device) -> None:
        super().__init__(device=device, verbose=False)
        self.trainable_module = model

    def forward(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """`loss`, and its parts by their names."""
        assert not isinstance(targets, Tensor | TokenTargets)
        parts: dict[str, Tensor] = self.trainable_module(images, [each.size for each in targets], targets)
        return {**parts, "loss": torch.stack(list(parts.values())).sum()}
