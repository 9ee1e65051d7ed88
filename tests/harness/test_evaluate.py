import psutil
import pytest
import timm
import torch
from torch import nn

from harness.evaluate import count_multiply_adds, count_parameters, peak_memory_gb

CPU = torch.device("cpu")


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
