"""Types of a batch: images and targets."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Box = tuple[int, int, int, int]
"""A part of a map of tokens: first row, first column, and those behind the last."""


class TokenTargets(NamedTuple):
    """Weights of classes for images whose tokens the model mixes (MixToken, arXiv:2104.10858).

    Attributes:
        image: of the mixed image.
        tokens: of every token, as it was before it was mixed.
        box: what an image gets from its counterpart in the reversed batch.
    """

    image: Float[Tensor, "batch classes"]
    tokens: Float[Tensor, "batch rows columns classes"]
    box: Box


class Objects(NamedTuple):
    """What is to be found in one image.

    Attributes:
        size: rows and columns of the image without its padding.
        boxes: left, top, right and bottom in pixels.
        labels: the class of each, from 0.
        masks: which pixels of the image belong to it.
        crowd: whether it stands for many; such an object is neither trained on nor counted as missed.
    """

    size: tuple[int, int]
    boxes: Float[Tensor, "objects 4"]
    labels: Int[Tensor, "objects"]
    masks: Bool[Tensor, "objects rows columns"]
    crowd: Bool[Tensor, "objects"]


Images = Float[Tensor, "batch channels height width"]
"""Normalized."""

LabelledBatch = tuple[Images, Int[Tensor, "batch"] | tuple[Objects, ...]]
"""Images, and the index of each one's class or the objects in each."""

Targets = Int[Tensor, "batch"] | Float[Tensor, "batch classes"] | TokenTargets | tuple[Objects, ...]
"""What images are trained on: classes, weights of classes where they are mixed, token labels, or objects."""

Batch = tuple[Images, Targets]


def take_images(batch: Batch, positions: Sequence[int]) -> Batch:
    """Some images of a batch with their targets."""
    images, targets = batch
    index = torch.tensor(positions, device=images.device)
    if isinstance(targets, TokenTargets):
        return images[index], TokenTargets(targets.image[index], targets.tokens[index], targets.box)
    if isinstance(targets, Tensor):
        return images[index], targets[index]
    return images[index], tuple(targets[position] for position in positions)
