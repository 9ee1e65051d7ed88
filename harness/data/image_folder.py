"""Image files in folders, `train/CLASS/*.jpg` and `val/CLASS/*.jpg`, as ImageNet-1K is usually stored.

The folder `val/` is the test set. Images may lie deeper than in `CLASS/`. Training images get timm's augmentation of
single images (random crop, flip, color, RandAugment, random erasing); `scale: null` is timm's default crop, 8 to 100 %
of the image. For token labels there is a third folder, `label_maps/`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.data.checks import check_augmentation, check_classes, check_counts, check_shape
from harness.data.family import Data, Description, Statistics
from harness.data.folder import IMAGE_SUFFIXES, digest_names, list_classes, list_files
from harness.data.index import SPLITS, Columns, Names, Watch, discard_index, get_digest, make_splits, read_index
from harness.data.label_maps import LabelMapFiles, check_label_maps, digest_label_maps
from harness.errors import DataError
from harness.spec import DataSpec, TrainingSpec

if TYPE_CHECKING:
    import torch
    from PIL import Image

INDEX = "image_folder"

statistics: Statistics = None


@dataclass(frozen=True)
class _ImageFiles:
    """The images of a split, class by class, decoded when they are asked for.

    Attributes:
        data_dir: where the split lies.
        files: paths below the folder of the split; the class comes first.
        sizes: of the files, in bytes.
        labels: of each file, the number of its class.
        classes: their names.
    """

    data_dir: Path
    split: str
    files: Names
    sizes: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: Names

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]:
        """Decode an image.

        Raises:
            DataError: its file has another size than when the folder was listed.
        """
        from harness.data.decoding import open_image

        with Path(self.find_name(index)).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != self.sizes[index]:
                discard_index(self.data_dir, INDEX)
                sizes = f"from {self.sizes[index]:,} to {size:,} bytes"
                raise DataError(
                    f"{self.find_name(index)} has changed {sizes} since it was listed; run the command again"
                )
            return open_image(file), int(self.labels[index])

    def find_name(self, index: int, /) -> str:
        return str(self.data_dir / self.split / self.files[index])


def check_data(spec: DataSpec, training: TrainingSpec, *, data_dir: Path | None) -> None:
    """Both folders are there, with the recipe's number of classes, the same in both, none of them empty."""
    train, test = _find_images(data_dir)
    check_classes(train.classes, test.classes, data_dir)
    check_shape(spec, num_classes=len(train.classes), channels=3)
    check_counts(spec, training, num_train=len(train), num_test=len(test))
    check_augmentation(spec, training, unsupported=("shift",), has_label_maps=True)
    if training.token_labels is not None:
        check_label_maps(train.data_dir, training, images=train.files)


def load_data(
    spec: DataSpec, training: TrainingSpec, *, replicate: int, data_dir: Path | None, device: torch.device
) -> Data:
    """Prepare loaders; files are decoded as batches are asked for."""
    from harness.data.streaming import LabelledImages, StreamedData
    from harness.data.token_labels import LabelMaps

    digest = digest_files(data_dir)
    train_files, test_files = _find_images(data_dir)
    train, test = (LabelledImages(images, images.labels) for images in (train_files, test_files))
    if training.token_labels is not None:
        paths = LabelMapFiles(train_files.data_dir, train_files.files)
        digest = f"{digest}+{digest_label_maps(data_dir)}"
        train = replace(train, maps=LabelMaps(paths, spec, training.token_labels))
    return StreamedData(spec, training, train, test, digest=digest, replicate=replicate, device=device)


def digest_files(data_dir: Path | None, _spec: DataSpec | None = None, /) -> str:
    """Of names and sizes alone: reading all of ImageNet takes too long."""
    return get_digest(_read_index(data_dir))


def describe(data_dir: Path | None, spec: DataSpec | None = None, /) -> Description:
    """How many images and classes there are in `data_dir`; asked about no recipe, it lists them again."""
    location = "" if data_dir is None else str(data_dir)
    if data_dir is not None and spec is None:
        discard_index(data_dir, INDEX)
    try:
        train, test = _find_images(data_dir)
    except DataError as error:
        return Description("image_folder", location, usable=False, state=str(error))
    return Description(
        "image_folder",
        location,
        usable=True,
        state=f"{len(train.classes)} classes",
        num_train=len(train),
        num_test=len(test),
        num_bytes=int(train.sizes.sum() + test.sizes.sum()),
        digest=digest_files(data_dir),
    )


def fetch(data_dir: Path | None) -> Iterator[str]:  # noqa: ARG001 - what every family is asked
    """Nothing: they are the user's."""
    return iter(())


def _require_folder(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise DataError("image_folder reads your image files: give the folder with train/ and val/ by --data DIR")
    return data_dir


def _find_images(data_dir: Path | None) -> tuple[_ImageFiles, _ImageFiles]:
    """What is trained on, and the test set."""
    return make_splits(_ImageFiles, _require_folder(data_dir), _read_index(data_dir))


def _read_index(data_dir: Path | None) -> Columns:
    folder = _require_folder(data_dir)
    return read_index(folder, INDEX, partial(_list_images, folder))


def _list_images(data_dir: Path, watch: Watch) -> Columns:
    """The files, sizes, labels and classes of both splits, and the digest of all."""
    columns, digested = dict[str, Any](), list[tuple[str, int]]()
    for split in SPLITS:
        folder = data_dir / split
        if not folder.is_dir():
            raise DataError(f"{folder} is missing: --data DIR needs train/CLASS/ and val/CLASS/ with image files")
        classes = list_classes(folder, watch)
        if not classes:
            raise DataError(_describe_lack(folder))
        images = [list_files(folder / name, IMAGE_SUFFIXES, watch) for name in classes]
        empty = [name for name, found in zip(classes, images, strict=True) if not found]
        if empty:
            raise DataError(f"{folder / empty[0]} has no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        files = [(f"{name}/{path}", size) for name, found in zip(classes, images, strict=True) for path, size in found]
        columns[f"{split}/files"] = Names.pack(name for name, _ in files)
        columns[f"{split}/sizes"] = np.array([size for _, size in files], np.int64)
        columns[f"{split}/labels"] = np.repeat(np.arange(len(classes)), [len(found) for found in images])
        columns[f"{split}/classes"] = Names.pack(classes)
        digested += [(f"{split}/{name}", size) for name, size in sorted(files)]
    return {**columns, "digest": Names.pack([digest_names(digested)])}


def _describe_lack(folder: Path) -> str:
    """Why a folder without folders holds no classes."""
    images = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        return f"{folder} is empty: it needs a folder with image files for each class"
    found = f"{len(images):,} images lie directly in {folder}, such as {images[0]}"
    return f"{found}: put each into the folder of its class, {folder / 'CLASS' / images[0]}, as in train/"
