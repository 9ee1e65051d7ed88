"""Folders of image files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def write_images(tmp_path: Path) -> Callable[[str], Path]:
    """Makes `train/` with 8 and `val/` with 3 images of each class, of the format that a suffix names."""

    def write(suffix: str) -> Path:
        generator = np.random.default_rng(0)
        for split, count in (("train", 8), ("val", 3)):
            for name in CLASSES:
                (tmp_path / split / name).mkdir(parents=True)
                for index in range(count):
                    pixels = generator.integers(0, 256, (40, 52, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(tmp_path / split / name / f"{index}.{suffix}")
        return tmp_path

    return write
