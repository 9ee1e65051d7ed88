"""Image files in folders, `train/CLASS/*.jpg` and `val/CLASS/*.jpg`, as ImageNet-1K is usually stored.

The folder `val/` is the test set. Images may lie deeper than in `CLASS/`. Training images get timm's augmentation of
single images (random crop, flip, color, RandAugment, random erasing); `scale: null` is timm's default crop, 8 to 100 %
of the image. For token labels there is a third folder, `label_maps/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.data.checks import check_augmentation, check_counts, check_shape
from harness.data.family import Data, Description, Statistics
from harness.data.folder import digest_names, list_classes, list_files
from harness.data.label_maps import check_label_maps, digest_label_maps, find_label_maps
from harness.errors import DataError
from harness.spec import DataSpec, TrainingSpec

if TYPE_CHECKING:
    import torch
    from PIL import Image

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


statistics: Statistics = None


@dataclass(frozen=True)
class _Listing:
    """The images below a folder: path from it (with the class first) and size in bytes, class by class."""

    files: tuple[tuple[str, int], ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class _ImageFiles:
    """Images that are decoded when they are asked for.

    Attributes:
        files: paths below `folder`.
        labels: of each file, the number of its class.
    """

    folder: Path
    files: Sequence[str]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]:
        from harness.data.decoding import open_image

        return open_image(self.folder / self.files[index]), self.labels[index]

    def find_name(self, index: int, /) -> str:
        return str(self.folder / self.files[index])


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
    from harness.data.streaming import LabelledImages, StreamedData
    from harness.data.token_labels import LabelMaps

    digest = digest_files(data_dir)
    train_files, test_files = _find_images(data_dir, "train"), _find_images(data_dir, "val")
    train, test = (LabelledImages(images, np.array(images.labels)) for images in (train_files, test_files))
    if training.token_labels is not None:
        paths = find_label_maps(_require_folder(data_dir), train_files.files)
        digest = f"{digest}+{digest_label_maps(data_dir)}"
        train = replace(train, maps=LabelMaps(paths, spec, training.token_labels))
    return StreamedData(spec, training, train, test, digest=digest, replicate=replicate, device=device)


def digest_files(data_dir: Path | None, _spec: DataSpec | None = None, /) -> str:
    """Of names and sizes alone: reading all of ImageNet takes too long."""
    listings = {split: sorted(_list_images(data_dir, split).files) for split in ("train", "val")}
    return digest_names((f"{split}/{name}", size) for split, files in listings.items() for name, size in files)


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


def _find_images(data_dir: Path | None, split: str) -> _ImageFiles:
    found = _list_images(data_dir, split)
    numbers = {name: number for number, name in enumerate(found.classes)}
    files = [name for name, _ in found.files]
    return _ImageFiles(_require_folder(data_dir) / split, files, [numbers[name.partition("/")[0]] for name in files])


def _list_images(data_dir: Path | None, split: str) -> _Listing:
    folder = _require_folder(data_dir) / split
    if not folder.is_dir():
        raise DataError(f"{folder} is missing: --data DIR needs train/CLASS/ and val/CLASS/ with image files")
    classes = list_classes(folder)
    if not classes:
        raise DataError(_describe_lack(folder))
    images = {name: list_files(folder / name, SUFFIXES) for name in classes}
    empty = [name for name, files in images.items() if not files]
    if empty:
        raise DataError(f"{folder / empty[0]} has no images ({', '.join(sorted(SUFFIXES))})")
    files = tuple((f"{name}/{path}", size) for name in classes for path, size in images[name])
    return _Listing(files, tuple(classes))


def _describe_lack(folder: Path) -> str:
    """Why a folder without folders holds no classes."""
    images = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not images:
        return f"{folder} is empty: it needs a folder with image files for each class"
    found = f"{len(images):,} images lie directly in {folder}, such as {images[0]}"
    return f"{found}: put each into the folder of its class, {folder / 'CLASS' / images[0]}, as in train/"
