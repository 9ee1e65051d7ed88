import math

import pytest
import torch
from timm.task import ClassificationTask
from torch import Tensor, nn

from harness.batch import Box, TokenTargets, take_images
from harness.division import list_positions
from harness.spec import TokenLabelsSpec, TrainingSpec
from harness.tasks.classification import CLASSIFICATION
from harness.tasks.token_labeling import TokenLabelingTask
from paradigms.backbones.volo import VOLO

CPU = torch.device("cpu")


class _Constant(nn.Module):
    """The same logits for whatever it sees; keeps the box that it was told."""

    def __init__(self, logits: Tensor, token_logits: Tensor) -> None:
        super().__init__()
        self.logits, self.token_logits = nn.Parameter(logits), nn.Parameter(token_logits)

    def classify_tokens(self, _images: Tensor, box: Box) -> tuple[Tensor, Tensor]:
        self.box = box
        return self.logits, self.token_logits


def _cross_entropy(logits: list[float], weights: list[float]) -> float:
    total = math.log(sum(math.exp(logit) for logit in logits))
    return -sum(weight * (logit - total) for logit, weight in zip(logits, weights, strict=True))


def _training(labels: TokenLabelsSpec | None) -> TrainingSpec:
    return TrainingSpec(lr=1e-3, batch_size=4, epochs=1, token_labels=labels)


def test_the_loss_is_that_of_the_image_and_a_part_of_the_mean_of_its_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    model = _Constant(torch.randn(2, 3, generator=generator), torch.randn(2, 2, 4, 3, generator=generator))
    targets = TokenTargets(
        torch.rand(2, 3, generator=generator).softmax(-1),
        torch.rand(2, 2, 4, 3, generator=generator).softmax(-1),
        (0, 1, 2, 3),
    )
    objective = CLASSIFICATION.build_objective(model, _training(TokenLabelsSpec(grid=4, weight=0.3)), CPU)
    result = objective(torch.zeros(2, 3, 8, 8), targets)
    of_images = [_cross_entropy(*pair) for pair in zip(model.logits.tolist(), targets.image.tolist(), strict=True)]
    tokens = model.token_logits.reshape(-1, 3).tolist(), targets.tokens.reshape(-1, 3).tolist()
    of_tokens = [_cross_entropy(*pair) for pair in zip(*tokens, strict=True)]
    expected = sum(of_images) / 2 + 0.3 * sum(of_tokens) / 16
    assert result["loss"].item() == pytest.approx(expected, rel=1e-6)
    assert result["output"] is model.logits
    assert model.box == (0, 1, 2, 3)


def test_a_recipe_without_token_labels_is_timms_task() -> None:
    model = nn.Linear(2, 2)
    assert isinstance(CLASSIFICATION.build_objective(model, _training(None), CPU), ClassificationTask)
    assert isinstance(CLASSIFICATION.build_objective(model, _training(TokenLabelsSpec(grid=4)), CPU), TokenLabelingTask)


def test_the_parts_of_a_batch_have_its_loss_although_tokens_are_exchanged() -> None:
    """MixToken exchanges tokens between the images of a pair, which are in one part."""
    torch.manual_seed(0)
    sizes = {"layers": [1, 1], "embed_dims": [8, 16], "stem_hidden_dim": 8, "use_aux_head": True, "num_classes": 3}
    model = VOLO(attention=[None, None], num_heads=[1, 2], img_size=32, patch_size=4, **sizes).eval()
    images = torch.rand(6, 3, 32, 32)
    targets = TokenTargets(torch.rand(6, 3).softmax(-1), torch.rand(6, 4, 4, 3).softmax(-1), (0, 1, 2, 3))
    objective = CLASSIFICATION.build_objective(model, _training(TokenLabelsSpec(grid=4)), CPU)
    parts = [take_images((images, targets), list_positions(6, part=part, num_parts=2)) for part in range(2)]
    losses = [objective(*part)["loss"].item() * len(part[0]) / 6 for part in parts]
    assert sum(losses) == pytest.approx(objective(images, targets)["loss"].item(), rel=1e-6)
    halves = [take_images((images, targets), range(first, first + 3)) for first in (0, 3)]
    broken = [objective(*half)["loss"].item() / 2 for half in halves]
    assert sum(broken) != pytest.approx(objective(images, targets)["loss"].item(), rel=1e-6)
