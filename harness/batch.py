"""Types of a batch: images and targets."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
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


Images = Float[Tensor, "batch channels height width"]
"""Normalized."""

LabelledBatch = tuple[Images, Int[Tensor, "batch"]]
"""Images and the index of each one's class."""

Targets = Int[Tensor, "batch"] | Float[Tensor, "batch classes"] | TokenTargets
"""What images are trained on: their classes, weights of classes where they are mixed, or token labels."""

Batch = tuple[Images, Targets]


def take_images(batch: Batch, positions: Sequence[int]) -> Batch:
    """Some images of a batch with their targets."""
    images, targets = batch
    index = torch.tensor(positions, device=images.device)
    if isinstance(targets, TokenTargets):
        return images[index], TokenTargets(targets.image[index], targets.tokens[index], targets.box)
    return images[index], targets[index]
