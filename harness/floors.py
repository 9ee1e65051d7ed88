"""Floors: models without attention, trained on the same images, that a table's rows should beat."""

from collections.abc import Callable
from math import prod

from torch import nn

Shape = tuple[int, int, int]
"""Channels, height, width of an image."""


def build_linear(shape: Shape, num_classes: int) -> nn.Module:
    """One linear layer on the pixels: (B, C, H, W) → (B, num_classes)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), num_classes))


def build_mlp(shape: Shape, num_classes: int, *, width: int) -> nn.Module:
    """One hidden layer of `width` units on the pixels: (B, C, H, W) → (B, num_classes)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), width), nn.ReLU(), nn.Linear(width, num_classes))


FLOORS: dict[str, Callable[..., nn.Module]] = {"linear": build_linear, "mlp": build_mlp}
