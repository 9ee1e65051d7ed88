"""Images of noise, as files and in memory, for tests that need some to train on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from harness.data.memory import ImageSet


def write_pictures(
    folder: Path,
    *,
    train: int,
    val: int,
    size: tuple[int, int] = (34, 40),
    suffix: str = "png",
    classes: Sequence[str] = ("ant", "bee"),
) -> Path:
    """Write `train/` and `val/` with so many images of each class, of this height and width."""
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.{suffix}")
    return folder


def draw_bars(count: int, *, seed: int) -> ImageSet:
    """Four kinds of noisy images, each with a bright bar at a height of its own."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(count) % 4).astype(np.uint8)
    pixels = generator.integers(0, 140, (count, 1, 8, 8), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[:, 2 * label : 2 * label + 2] += 100
    return ImageSet.take(pixels, labels, np.arange(count))
