import psutil
import pytest
import timm
import torch
from torch import nn

from harness.evaluate import count_multiply_adds, count_parameters, measure, peak_memory_gb

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
    measured = measure(nn.Identity(), batches, CPU)
    assert (measured.top1, measured.top5) == pytest.approx((100 / 3, 200 / 3))
    assert measured.loss == pytest.approx(nn.functional.cross_entropy(LOGITS, LABELS).item())
    assert measured.predictions.tolist() == [0, 1, 1]
    assert measured.labels.tolist() == [0, 0, 0]


def test_fewer_than_five_classes_are_all_among_the_first_five() -> None:
    assert measure(nn.Identity(), [(LOGITS[:, :3], LABELS)], CPU).top5 == 100


def test_a_model_is_measured_in_eval_mode_without_gradients() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(6, 6))
    first, second = (measure(model.train(), [(LOGITS, LABELS)], CPU) for _ in range(2))
    assert first.loss == second.loss
    assert not model.training


def test_frozen_numbers_are_not_counted() -> None:
    model = nn.Linear(3, 5)
    assert count_parameters(model) == 20
    model.bias.requires_grad_(False)
    assert count_parameters(model) == 15


def test_multiply_adds_are_those_of_one_image() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(2, 3, 5), nn.Flatten(), nn.Linear(3 * 4 * 6, 7))
    assert count_multiply_adds(model, (2, 8, 10)) == 4 * 6 * 2 * 3 * 25 + 3 * 4 * 6 * 7


def test_multiply_adds_of_timms_swin_are_the_published_ones() -> None:
    with torch.device("meta"):
        model = timm.create_model("swin_tiny_patch4_window7_224")
    assert count_parameters(model) == pytest.approx(28.288e6, abs=500)
    assert count_multiply_adds(model, (3, 224, 224)) == pytest.approx(4.491e9, abs=5e5)


def test_peak_memory_is_at_least_what_is_held_now() -> None:
    held = psutil.Process().memory_info().rss / 1e9
    assert 0.99 * held <= peak_memory_gb(CPU) < 10 * held
