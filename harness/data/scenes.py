"""Scenes composed of small grey pictures: items that hide each other on a cluttered background. Imports no torch.

All arithmetic is on integers, and every scene has a generator of its own: a seed gives the same bytes on every machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

COMPOSITION = 1
"""The version of what a seed is composed to; raise it with every change of a pixel or an object."""

MAX_ITEMS = 8
MIN_SIDE, MAX_SIDE = 20, 56
"""Of an item in pixels: 0.7 to 2 times a picture of 28 pixels."""

THRESHOLD = 16
"""An item consists of its pixels above this value; the others are its picture's background."""

MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE = 32, 4
"""An item is an object where 32 of its pixels or more are visible, and at least one in 4 of them."""

NOISE = 32
"""The background has values below this one, each as likely as the others."""

PIXELS_PER_PATCH = 1_024
MIN_PATCH, MAX_PATCH = 6, 14
"""Sides of the patches of other pictures that clutter the background, of which there is one per 1,024 pixels."""

_Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Scenes:
    """Images with their objects, from back to front; rows of `boxes` and `labels` beyond `counts` are 0.

    Attributes:
        images: (scenes, rows, columns).
        instances: (scenes, rows, columns): n where the nth object is visible (1-based), 0 elsewhere.
        boxes: (scenes, 8, 4): left, top, and the first column and row behind the visible pixels.
        labels: (scenes, 8).
        counts: (scenes,): how many objects there are.
    """

    images: _Bytes
    instances: _Bytes
    boxes: NDArray[np.int16]
    labels: _Bytes
    counts: _Bytes

    def make_semantic_maps(self) -> _Bytes:
        """(scenes, rows, columns): class + 1 of the visible object, 0 where there is none."""
        values = np.concatenate([np.zeros_like(self.labels[:, :1]), self.labels + 1], axis=1)
        return np.stack([values[scene][self.instances[scene]] for scene in range(len(self.counts))])


def compose_scenes(pictures: _Bytes, classes: _Bytes, seeds: Sequence[int], *, size: int) -> Scenes:
    """A scene of `size` by `size` pixels for each seed.

    Args:
        pictures: (pictures, 28, 28): what items and clutter are drawn from.
        classes: (pictures,): of each picture.
        seeds: of the scenes.
        size: at least 56.
    """
    num_scenes = len(seeds)
    scenes = Scenes(
        images=np.empty((num_scenes, size, size), np.uint8),
        instances=np.empty((num_scenes, size, size), np.uint8),
        boxes=np.zeros((num_scenes, MAX_ITEMS, 4), np.int16),
        labels=np.zeros((num_scenes, MAX_ITEMS), np.uint8),
        counts=np.empty(num_scenes, np.uint8),
    )
    for number, seed in enumerate(seeds):
        generator = np.random.default_rng(seed)
        image = _make_background(pictures, generator, size)
        drawn, items, num_pixels = _paste_items(image, pictures, generator)
        kept = _find_objects(drawn, num_pixels)
        renumbered = np.zeros(MAX_ITEMS + 1, np.uint8)
        renumbered[kept + 1] = np.arange(1, len(kept) + 1)
        instances = renumbered[drawn]
        scenes.images[number], scenes.instances[number] = image, instances
        scenes.labels[number, : len(kept)], scenes.counts[number] = classes[items[kept]], len(kept)
        for position in range(len(kept)):
            scenes.boxes[number, position] = _find_box(instances == position + 1)
    return scenes


def resize_picture(picture: _Bytes, side: int) -> NDArray[np.int32]:
    """Bilinear interpolation of a square picture, rounded half up; exact, since only integers are added."""
    left, right, weights = _list_taps(len(picture), side)
    scale = 2 * side
    wide = picture[:, left] * (scale - weights) + picture[:, right] * weights  # (28, side), times scale
    whole = wide[left] * (scale - weights)[:, None] + wide[right] * weights[:, None]  # (side, side), times scale²
    rounded: NDArray[np.int32] = np.floor_divide(whole + scale * scale // 2, scale * scale)
    return rounded


@cache
def _list_taps(source: int, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """The two pixels that each new one lies between, and the weight of the second out of 2 * side."""
    centers = (2 * np.arange(side) + 1) * source - side  # in units of 1 / (2 * side) of a pixel
    left = centers // (2 * side)
    weights = (centers - 2 * side * left).astype(np.int32)
    return left.clip(0, source - 1), (left + 1).clip(0, source - 1), weights


def _make_background(pictures: _Bytes, generator: np.random.Generator, size: int) -> _Bytes:
    image = generator.integers(0, NOISE, (size, size), dtype=np.uint8)
    num_patches, source = size * size // PIXELS_PER_PATCH, pictures.shape[-1]
    drawn = generator.integers(0, len(pictures), num_patches)
    sides = generator.integers(MIN_PATCH, MAX_PATCH + 1, (num_patches, 2))
    cuts = generator.integers(0, source - sides + 1)
    places = generator.integers(0, size - sides + 1)
    for index, (rows, columns), (cut_top, cut_left), (top, left) in zip(
        drawn.tolist(), sides.tolist(), cuts.tolist(), places.tolist(), strict=True
    ):
        patch = pictures[index, cut_top : cut_top + rows, cut_left : cut_left + columns]
        covered = image[top : top + rows, left : left + columns]
        np.maximum(covered, patch, out=covered)
    return image


def _paste_items(
    image: _Bytes, pictures: _Bytes, generator: np.random.Generator
) -> tuple[_Bytes, NDArray[np.int64], NDArray[np.int64]]:
    """Draw items onto an image, later ones over earlier ones.

    Returns:
        Which item is visible at each pixel (1-based, 0 for none), their pictures, and how many pixels each one has.
    """
    num_items = int(generator.integers(1, MAX_ITEMS + 1))
    items = generator.integers(0, len(pictures), num_items)
    sides = generator.integers(MIN_SIDE, MAX_SIDE + 1, num_items)
    places = generator.integers(0, len(image) - sides + 1, (2, num_items))
    drawn, num_pixels = np.zeros_like(image), np.zeros(num_items, np.int64)
    for number, (index, side, top, left) in enumerate(
        zip(items.tolist(), sides.tolist(), *places.tolist(), strict=True)
    ):
        item = resize_picture(pictures[index], side)
        shape, window = item > THRESHOLD, np.s_[top : top + side, left : left + side]
        image[window][shape] = item[shape]
        drawn[window][shape] = number + 1
        num_pixels[number] = shape.sum()
    return drawn, items, num_pixels


def _find_objects(drawn: _Bytes, num_pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The items (0-based) of which enough is visible."""
    visible = np.bincount(drawn.ravel(), minlength=len(num_pixels) + 1)[1:]
    return np.flatnonzero((visible >= MIN_VISIBLE_PIXELS) & (visible * MIN_VISIBLE_SHARE >= num_pixels))


def _find_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
