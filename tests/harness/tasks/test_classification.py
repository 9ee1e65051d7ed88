import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from harness.ranks import Ranks
from harness.tasks.classification import CLASSIFICATION, is_at_ceiling, is_at_chance

CPU = torch.device("cpu")
LOGITS = torch.tensor(
    [
        [9.0, 5.0, 4.0, 3.0, 2.0, 1.0],  # label 0: first
        [5.0, 9.0, 4.0, 3.0, 2.0, 1.0],  # label 0: second
        [1.0, 9.0, 5.0, 4.0, 3.0, 2.0],  # label 0: last
    ]
)
LABELS = torch.zeros(3, dtype=torch.long)


def test_top1_top5_and_loss_are_means_over_images_not_batches() -> None:
    batches = [(LOGITS[:2], LABELS[:2]), (LOGITS[2:], LABELS[2:])]
    measured = CLASSIFICATION.evaluate(nn.Identity(), batches, Ranks(CPU))
    loss = nn.functional.cross_entropy(LOGITS, LABELS).item()
    assert measured.scores == pytest.approx({"top1": 100 / 3, "top5": 200 / 3, "loss": loss})
    assert {name: values.tolist() for name, values in measured.per_image.items()} == {
        "predictions": [0, 1, 1],
        "labels": [0, 0, 0],
    }
    assert measured.num_images == 3


def test_the_scores_of_images_have_the_runs_top1_as_their_mean() -> None:
    kept = {"predictions": np.array([3, 1, 9, 2]), "labels": np.array([3, 1, 0, 0])}
    (scores,) = CLASSIFICATION.score_images(kept).values()
    assert list(scores) == [100.0, 100.0, 0.0, 0.0]


def test_fewer_than_five_classes_are_all_among_the_first_five() -> None:
    assert CLASSIFICATION.evaluate(nn.Identity(), [(LOGITS[:, :3], LABELS)], Ranks(CPU)).scores["top5"] == 100


def test_a_model_is_measured_in_eval_mode_without_gradients() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(6, 6))
    first, second = (CLASSIFICATION.evaluate(model.train(), [(LOGITS, LABELS)], Ranks(CPU)) for _ in range(2))
    assert first.scores == second.scores
    assert not model.training


@pytest.mark.parametrize(
    ("top1", "num_images", "at_ceiling"),
    [(100.0, 100, True), (99.95, 10_000, True), (98.0, 10_000, False), (50.0, 4, False), (100.0, 4, False)],
)
def test_a_row_within_three_standard_errors_of_all_is_at_the_ceiling(top1, num_images, at_ceiling):
    assert is_at_ceiling(top1, num_images, 0.1) is at_ceiling


@pytest.mark.parametrize(
    ("num_correct", "num_images", "num_classes", "at_chance"),
    [
        (4, 4, 2, False),
        (0, 4, 2, False),
        (0, 4, 10, False),
        (9, 10, 2, False),
        (100, 1000, 10, True),
        (80, 1000, 10, True),
        (180, 1000, 10, False),
        (50, 100, 2, True),
        (62, 100, 2, False),
        (50, 50_000, 1000, True),
        (100, 50_000, 1000, False),
        (7, 7, 1, False),
    ],
)
def test_only_enough_images_call_a_run_at_chance(num_correct, num_images, num_classes, at_chance):
    assert is_at_chance(num_correct, num_images, 1 / num_classes) is at_chance


def test_at_chance_is_two_exact_binomial_tests():
    for num_images, num_correct in ((n, k) for n in (3, 12, 60) for k in range(n + 1)):
        above = stats.binomtest(num_correct, num_images, 0.25, alternative="greater").pvalue
        below = stats.binomtest(num_correct, num_images, 0.625, alternative="less").pvalue
        assert is_at_chance(num_correct, num_images, 0.25) is bool(above >= 0.05 and below < 0.001)
