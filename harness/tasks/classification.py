"""Classification: one class per image, scored by top-1 and top-5. The only file that knows these measures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from harness.measure import Measure
from harness.spec import DataSpec, TrainingSpec
from harness.tasks.task import Evaluation, Task

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from timm.task import TrainingTask
    from torch import nn

    from harness.batch import LabelledBatch
    from harness.ranks import Ranks

TOP1 = Measure("top1", "top-1", "%", ceiling=100.0, relevant_gain=0.2)
"""Percent of the images whose most likely class is right. Gains below 0.2 points are within the noise between runs that
the authors see (arXiv:2112.12786)."""

TOP5 = Measure("top5", "top-5", "%", ceiling=100.0, relevant_gain=0.2)
"""Percent of the images with the right class among the five most likely."""

RANKS = {TOP1.name: 1, TOP5.name: 5}
"""How many of the most likely classes a measure looks at."""

ALPHA = 0.05
SURE_ALPHA = 0.001
"""How improbable a middling model must be before a run is called at chance, or a row at the ceiling."""


class Classification(Task):
    """Cross-entropy on the class of an image, or token labeling where the recipe asks for it."""

    measures = (TOP1, TOP5)
    quality = "accuracy"
    chance_rule = "exact binomial test"
    ceiling_rule = "within three standard errors of 100 %"

    def count_outputs(self, data: DataSpec) -> int:
        """A logit for each class."""
        return data.num_classes

    def build_objective(self, model: nn.Module, training: TrainingSpec, device: torch.device) -> TrainingTask:
        """Cross-entropy with label smoothing or mixed targets, or token labeling."""
        from timm.task import ClassificationTask

        from harness.tasks.token_labeling import TokenLabelingTask

        if training.token_labels is not None:
            return TokenLabelingTask(model, weight=training.token_labels.weight, device=device)
        return ClassificationTask(
            model,
            criterion_kwargs={"smoothing": training.smoothing, "soft_targets": training.augmentation.mixes_images},
            device=device,
            verbose=False,
        )

    def evaluate(self, model: nn.Module, batches: Iterable[LabelledBatch], ranks: Ranks) -> Evaluation:
        """Top-1, top-5 and mean cross-entropy; the most likely and the right class of each image are kept."""
        import torch
        from torch.nn.functional import cross_entropy

        model.eval()
        measured = []
        with torch.inference_mode():
            for images, truth in batches:
                assert isinstance(truth, torch.Tensor)
                logits, labels = model(images.to(ranks.device)).float(), truth.to(ranks.device)
                ranked = logits.topk(min(RANKS[TOP5.name], logits.shape[-1])).indices
                measured.append((cross_entropy(logits, labels, reduction="none"), ranked, labels))
            losses, classes, right = map(torch.cat, zip(*ranks.gather_batches(measured), strict=True))
            correct = classes == right[:, None]
            return Evaluation(
                scores={
                    TOP1.name: 100 * correct[:, 0].double().mean().item(),
                    TOP5.name: 100 * correct.any(-1).double().mean().item(),
                    "loss": losses.double().mean().item(),
                },
                per_image={"predictions": classes[:, 0].cpu().numpy(), "labels": right.cpu().numpy()},
            )

    def score_images(self, per_image: Mapping[str, NDArray[np.generic]]) -> Mapping[str, NDArray[np.float64]]:
        """Top-1: 100 where the most likely class is right, else 0; no other class of an image is kept."""
        return {TOP1.name: 100.0 * (per_image["predictions"] == per_image["labels"])}

    def check_training(self, training: TrainingSpec) -> None:
        """Every field of a recipe's training is understood."""

    def find_chance(self, measure: Measure, data: DataSpec) -> float:
        """Every class is equally likely."""
        return 100 * min(RANKS[measure.name], data.num_classes) / data.num_classes

    def explain_chance(self, measure: Measure, value: float, num_images: int) -> str:
        """An exact binomial test; see `is_at_chance`."""
        assert measure.chance is not None
        if not is_at_chance(round(value / 100 * num_images), num_images, measure.chance / 100):
            return ""
        return f"{value:.1f} % of {num_images:,.0f} validation images are right, guessing gets {measure.chance:.3g} %"

    def is_at_ceiling(self, measure: Measure, value: float, num_images: int) -> bool:
        """Within three standard errors of 100 %; see `is_at_ceiling`."""
        assert measure.chance is not None
        return is_at_ceiling(value, num_images, measure.chance / 100)


def is_at_chance(num_correct: int, num_images: int, chance: float) -> bool:
    """Whether a model looks like one that guesses; `chance` is the share that guessing gets right.

    Two exact binomial tests have to agree: guessing would get as many images right with a probability of 5 % or more,
    and a model halfway between guessing and perfection so few with less than 0.1 %. A few images fulfil the second
    for no result that is worth the name, so that they cannot condemn a run.
    """
    from scipy.special import bdtr, bdtrc

    looks_like_guessing = bdtrc(num_correct - 1, num_images, chance) >= ALPHA
    excludes_learning = bdtr(num_correct, num_images, (1 + chance) / 2) < SURE_ALPHA
    return bool(looks_like_guessing and excludes_learning)


def is_at_ceiling(percent: float, num_images: int, chance: float) -> bool:
    """Whether a share of `num_images` images (in percent) is within three standard errors of 100 %.

    A model halfway between guessing and perfection must be excluded besides, as in `is_at_chance`: of a few images
    every share is within three standard errors of all.
    """
    from scipy.special import bdtrc

    share = percent / 100
    is_near = 1 - share <= 3 * math.sqrt(share * (1 - share) / num_images)
    return is_near and bool(bdtrc(round(share * num_images) - 1, num_images, (1 + chance) / 2) < SURE_ALPHA)


CLASSIFICATION = Classification()
