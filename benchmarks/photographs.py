"""Generated photographs with the size of ImageNet's, as a folder of files and as archives."""

import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 500, 375
"""The most frequent size in ImageNet."""

QUALITY = 96
"""With this content it gives files of about 110 kB, the mean of ImageNet."""

NUM_CLASSES, DISTINCT, IMAGES_PER_SHARD = 8, 32, 128
SPLITS = ("train", "val")


def write_folder(folder: Path, *, images: int) -> Path:
    """As many training images, and an eighth of them to test on, in the layout of `image_folder`."""
    contents = [_draw_photograph(seed) for seed in range(DISTINCT)]
    for split, count in zip(SPLITS, (images, images // 8), strict=True):
        for number in range(count):
            path = folder / split / f"class{number % NUM_CLASSES}" / f"{number:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents[number % DISTINCT])
    return folder


def pack_shards(folder: Path, target: Path) -> Path:
    """The images of a folder in the layout of `image_shards`."""
    for split in SPLITS:
        (target / split).mkdir(parents=True)
        paths = sorted((folder / split).glob("*/*"))
        for start in range(0, len(paths), IMAGES_PER_SHARD):
            with tarfile.open(target / split / f"{start:06d}.tar", "w") as archive:
                for path in paths[start : start + IMAGES_PER_SHARD]:
                    archive.add(path, path.relative_to(folder / split).as_posix())
    return target


def _draw_photograph(seed: int) -> bytes:
    """Noise of every scale, stronger where coarser, as in natural images."""
    generator = np.random.default_rng(seed)
    pixels = np.zeros((HEIGHT, WIDTH, 3))
    for level in range(9):
        noise = generator.standard_normal((3 * 2**level, 4 * 2**level, 3)).clip(-3, 3)
        coarse = Image.fromarray((noise * 40 + 128).clip(0, 255).astype(np.uint8))
        pixels += (np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)) - 128.0) * 0.8**level
    file = BytesIO()
    Image.fromarray((pixels * 0.6 + 128).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
