"""Random augmentation of whole batches in memory, and its random streams."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from harness.spec import AugmentationSpec, DataSpec, TrainingSpec

_CPU = torch.device("cpu")


@contextmanager
def seeded(seed: int, *, device: torch.device = _CPU) -> Iterator[None]:
    """Inside, the global generators of Python, numpy, torch (and `device`) start at `seed`; outside they are untouched.

    timm's augmentations draw from all of them, and so does drop path: neither may move the other's stream.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    accelerators = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=accelerators):
        torch.default_generator.manual_seed(seed)
        if accelerators:
            torch.cuda.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def order_generator(seed: int) -> torch.Generator:
    """A generator of its own for a random order."""
    return torch.Generator().manual_seed(seed)


class BatchAugmentation:
    """uint8 images → normalized, augmented images: flip, shift, random erasing where it is before mixing.

    Each is drawn for every image by itself, from torch's and Python's global generators.
    """

    def __init__(self, spec: AugmentationSpec, *, mean: float, std: float) -> None:
        self.hflip, self.shift, self.mean, self.std = spec.hflip, spec.shift, mean, std
        self.erase = build_erasing(spec, "before_mixing")

    def __call__(
        self, images: UInt8[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Augment a batch of images."""
        if self.hflip:
            flipped = torch.rand(len(images)) < self.hflip
            images = flip_images(images, flipped)
        if self.shift:
            images = shift_images(images, self.shift)
        batch = normalize(images, mean=self.mean, std=self.std)
        return batch if self.erase is None else self.erase(batch)


def build_erasing(
    spec: AugmentationSpec, place: Literal["before_mixing", "after_mixing"], *, device: torch.device = _CPU
) -> RandomErasing | None:
    """Random erasing with noise, where the recipe has it at this place."""
    return (
        RandomErasing(spec.reprob, mode="pixel", device=device) if spec.reprob > 0 and spec.erasing == place else None
    )


class ErasingOfPart:
    """Random erasing of a part of each batch, with the numbers that it would draw for the whole batch.

    Args:
        erase: draws an image's patch without looking at its pixels.
        positions: of the part's images in the whole batch.
        num_images: of the whole batch.
    """

    def __init__(self, erase: "Erasing", positions: Sequence[int], num_images: int) -> None:
        self.erase, self.positions, self.num_images = erase, positions, num_images

    def __call__(self, images: Tensor) -> Tensor:
        """Erase in place, as timm does."""
        own, scratch = dict(zip(self.positions, images, strict=True)), torch.empty_like(images[0])
        for position in range(self.num_images):
            self.erase(own.get(position, scratch))
        return images


Erasing = RandomErasing | ErasingOfPart


def normalize(images: UInt8[Tensor, "*shape"], *, mean: float, std: float) -> Float[Tensor, "*shape"]:
    """Bytes → numbers with the given mean and standard deviation (of pixels in [0, 1]) taken out."""
    return images.float().sub_(255 * mean).div_(255 * std)


def flip_images(
    images: UInt8[Tensor, "batch channels height width"], flipped: Bool[Tensor, "batch"]
) -> UInt8[Tensor, "batch channels height width"]:
    """Mirror some images, left for right."""
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)


def shift_images(
    images: UInt8[Tensor, "batch channels height width"], largest: int
) -> UInt8[Tensor, "batch channels height width"]:
    """Move each image by up to `largest` pixels along both axes; what moves in is black."""
    batch, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (largest,) * 4)
    top, left = torch.randint(0, 2 * largest + 1, (2, batch))
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    moved = padded[torch.arange(batch)[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
    return moved.permute(0, 3, 1, 2)


def build_mixup(data: DataSpec, training: TrainingSpec) -> Mixup | None:
    """Mixup and cutmix of a batch, with the recipe's label smoothing; None where the recipe has neither."""
    augmentation = training.augmentation
    if not augmentation.mixes_images:
        return None
    return Mixup(
        augmentation.mixup, augmentation.cutmix, label_smoothing=training.smoothing, num_classes=data.num_classes
    )
