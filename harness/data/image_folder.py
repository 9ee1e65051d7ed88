"""Image files in folders: `train/CLASS/*.jpg` and `val/CLASS/*.jpg`, as ImageNet-1K is usually stored.

The folder `val/` is the test set. Training images get timm's augmentation of single images (random crop, flip, color,
RandAugment, random erasing); `scale: null` is timm's default crop, 8 to 100 % of the image. For token labels there is a
third folder, `label_maps/`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.data.checks import check_augmentation, check_counts, check_shape
from harness.data.family import Data, Description
from harness.data.label_maps import check_label_maps, digest_label_maps, find_label_maps
from harness.errors import DataError
from harness.spec import DataSpec, TrainingSpec

if TYPE_CHECKING:
    import torch

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class _Listing:
    """The images below a folder: path from it (with the class first) and size in bytes, sorted."""

    files: tuple[tuple[str, int], ...]
    classes: tuple[str, ...]


def check_data(spec: DataSpec, training: TrainingSpec, *, data_dir: Path | None) -> None:
    """Both folders are there, with the recipe's number of classes, the same in both, none of them empty."""
    train, test = _list_images(data_dir, "train"), _list_images(data_dir, "val")
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise DataError(f"train/ and val/ of {data_dir} must have the same classes; only in one of them: {odd[0]}")
    check_shape(spec, num_classes=len(train.classes), channels=3)
    check_counts(spec, training, num_train=len(train.files), num_test=len(test.files))
    check_augmentation(spec, training, unsupported=("shift",), has_label_maps=True)
    if training.token_labels is not None:
        check_label_maps(_require_folder(data_dir), training, images=[name for name, _ in train.files])


def load_data(
    spec: DataSpec, training: TrainingSpec, *, replicate: int, data_dir: Path | None, device: torch.device
) -> Data:
    """Prepare loaders; files are decoded as batches are asked for."""
    from timm.data import create_dataset

    from harness.data.streaming import LabelledImages, StreamedData
    from harness.data.token_labels import LabelMaps

    root, digest = str(_require_folder(data_dir)), digest_files(data_dir)
    folders = [create_dataset("torch/image_folder", root=root, split=split) for split in ("train", "val")]
    train, test = (LabelledImages(folder, np.array(folder.targets)) for folder in folders)
    if training.token_labels is not None:
        paths = find_label_maps(_require_folder(data_dir), (path for path, _ in folders[0].samples))
        digest = f"{digest}+{digest_label_maps(data_dir)}"
        train = replace(train, maps=LabelMaps(paths, spec, training.token_labels))
    return StreamedData(spec, training, train, test, digest=digest, replicate=replicate, device=device)


def digest_files(data_dir: Path | None, _spec: DataSpec | None = None, /) -> str:
    """Of names and sizes alone: reading all of ImageNet takes too long."""
    lines = [
        f"{split}/{name} {size}" for split in ("train", "val") for name, size in _list_images(data_dir, split).files
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def describe(data_dir: Path | None, _spec: DataSpec | None = None, /) -> Description:
    """How many images and classes there are in `data_dir`."""
    location = "" if data_dir is None else str(data_dir)
    try:
        train, test = _list_images(data_dir, "train"), _list_images(data_dir, "val")
    except DataError as error:
        return Description("image_folder", location, usable=False, state=str(error))
    return Description(
        "image_folder",
        location,
        usable=True,
        state=f"{len(train.classes)} classes",
        num_train=len(train.files),
        num_test=len(test.files),
        num_bytes=sum(size for _, size in train.files + test.files),
        digest=digest_files(data_dir),
    )


def fetch(data_dir: Path | None) -> Iterator[str]:  # noqa: ARG001 - what every family is asked
    """Nothing: they are the user's."""
    return iter(())


def _require_folder(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise DataError("image_folder reads your image files: give the folder with train/ and val/ by --data DIR")
    return data_dir


def _list_images(data_dir: Path | None, split: str) -> _Listing:
    folder = _require_folder(data_dir) / split
    if not folder.is_dir():
        raise DataError(f"{folder} is missing: --data DIR needs train/CLASS/ and val/CLASS/ with image files")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    files = sorted(
        (path.relative_to(folder).as_posix(), path.stat().st_size)
        for name in classes
        for path in _walk_images(folder / name)
    )
    empty = set(classes) - {name.partition("/")[0] for name, _ in files}
    if empty or not files:
        raise DataError(f"{folder / min(empty, default='')} has no images ({', '.join(sorted(SUFFIXES))})")
    return _Listing(tuple(files), tuple(classes))


def _walk_images(folder: Path) -> list[Path]:
    return [
        Path(root, name)
        for root, _, names in os.walk(folder, followlinks=True)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES
    ]
