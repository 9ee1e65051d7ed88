"""Any dataset that timm opens by a string: `hfds/NAME`, `tfds/NAME`, `wds/NAME`, `torch/cifar10`, ...

`--data DIR` is timm's `root`: the folder, or the cache, that holds it. `data.train_split` and `data.test_split` are the
dataset's own names. Images are decoded and augmented one by one, as those of `image_folder` are. A dataset that can be
read from its beginning only (tfds, wds, hfids) is read into memory, so that order and samples are ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.data.checks import check_augmentation, check_counts, check_shape
from harness.data.family import Data, Description, Statistics
from harness.data.folder import list_files
from harness.data.index import Watch
from harness.errors import DataError
from harness.spec import DataSpec, TrainingSpec

if TYPE_CHECKING:
    import torch
    from PIL import Image

NO_SOURCE = "a recipe names any dataset of timm by its string, data.source"

FOLDERS = ("torch/folder", "torch/image_folder")
"""Sources with a prefix that are folders of image files, as every source without one."""

_Labels = NDArray[np.int64]


statistics: Statistics = None


@dataclass(frozen=True)
class _TimmImages:
    """The images of a split in the mode that their files have: timm's own items are RGB already, whatever is lost.

    Attributes:
        dataset: timm's, torchvision's, or a list of (image, label).
    """

    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]:
        from timm.data import ImageDataset

        from harness.data.decoding import open_image

        if not isinstance(self.dataset, ImageDataset):
            image, label = self.dataset[index]
            return image, label
        file, label, *_ = self.dataset.reader[index]  # the dataset itself would skip an image that is damaged
        with file:
            return open_image(file), label

    def find_name(self, index: int, /) -> str:
        if hasattr(self.dataset, "reader"):
            name = self.dataset.reader.filename(index, absolute=True)
        else:
            files = getattr(self.dataset, "samples", None) or getattr(self.dataset, "imgs", None)
            name = files[index][0] if files else None
        return str(name or f"image {index}")


def check_data(spec: DataSpec, training: TrainingSpec, *, data_dir: Path | None) -> None:
    """Timm opens both splits, every label is one of the recipe's classes, and the last of those is trained on."""
    check_shape(spec, channels=3)
    train, test = _read_splits(spec, data_dir)
    for split, labels in ((spec.train_split, train), (spec.test_split, test)):
        if len(labels) and not 0 <= labels.min() <= labels.max() < spec.num_classes:
            raise DataError(_describe_labels(spec, split, labels))
    if len(train) and train.max() < spec.num_classes - 1:
        raise DataError(_describe_labels(spec, spec.train_split, train))
    check_counts(spec, training, num_train=len(train), num_test=len(test))
    check_augmentation(spec, training, unsupported=("shift",))


def load_data(
    spec: DataSpec, training: TrainingSpec, *, replicate: int, data_dir: Path | None, device: torch.device
) -> Data:
    """Prepare loaders; images are decoded as batches are asked for."""
    from harness.data.streaming import LabelledImages, StreamedData

    train, test = (
        LabelledImages(_TimmImages(images), read_labels(images))
        for images in (_open(spec, split, data_dir) for split in (spec.train_split, spec.test_split))
    )
    digest = _digest(train.labels, test.labels)
    return StreamedData(spec, training, train, test, digest=digest, replicate=replicate, device=device)


def digest_files(data_dir: Path | None, spec: DataSpec, /) -> str:
    """Of the labels alone, in their order: decoding all images takes too long."""
    return _digest(*_read_splits(spec, data_dir))


def describe(data_dir: Path | None, spec: DataSpec | None = None, /) -> Description:
    """How many images there are of what a recipe names."""
    location = "" if data_dir is None else str(data_dir)
    if spec is None:
        return Description("timm", location, usable=False, state=NO_SOURCE)
    try:
        train, test = _read_splits(spec, data_dir)
    except DataError as error:
        return Description("timm", location, usable=False, state=str(error))
    state = f"{spec.source}, {len(np.unique(train))} classes"
    return Description(
        "timm",
        location,
        usable=True,
        state=state,
        num_train=len(train),
        num_test=len(test),
        digest=_digest(train, test),
    )


def fetch(data_dir: Path | None) -> Iterator[str]:  # noqa: ARG001 - what every family is asked
    """Nothing: what timm does not find it may fetch itself."""
    return iter(())


def _describe_labels(spec: DataSpec, split: str, labels: _Labels) -> str:
    found = f"labels {labels.min()} to {labels.max()}"
    return f"data.num_classes: {split} of {spec.source} has {found}, the recipe says {spec.num_classes} classes"


def _read_splits(spec: DataSpec, data_dir: Path | None) -> tuple[_Labels, _Labels]:
    return _read_split(spec, spec.train_split, data_dir), _read_split(spec, spec.test_split, data_dir)


@cache
def _read_split(spec: DataSpec, split: str, data_dir: Path | None) -> _Labels:
    return read_labels(_open(spec, split, data_dir))


def _open(spec: DataSpec, split: str, data_dir: Path | None) -> Any:
    """Something with a length whose items are (image, label)."""
    from timm.data import create_dataset
    from torch.utils.data import IterableDataset

    from harness.data.decoding import DECODE_ERRORS, open_image

    if spec.source is None:
        raise DataError(f"data.source is missing: {NO_SOURCE}")
    _check_links(spec.source, data_dir)
    root = None if data_dir is None else str(data_dir)
    mode = "RGB" if spec.source.lower().startswith("tfds/") else ""  # these are decoded to RGB by TensorFlow
    try:
        images = create_dataset(spec.source, root=root, split=split, input_img_mode=mode)
        if isinstance(images, IterableDataset):
            return list(images)
    except (ImportError, *DECODE_ERRORS) as error:
        where = "--data DIR was not given" if data_dir is None else f"--data {data_dir}"
        raise DataError(f"timm cannot open split {split!r} of {spec.source!r} ({where}): {error}") from error
    if hasattr(images, "loader"):  # torchvision's, which makes RGB
        images.loader = open_image
    return images


def _check_links(source: str, data_dir: Path | None) -> None:
    """A folder of image files must not lead back to itself: timm would list it until the system stops it."""
    if data_dir is not None and data_dir.is_dir() and ("/" not in source or source.lower() in FOLDERS):
        list_files(data_dir, (), Watch())


def read_labels(images: Any) -> _Labels:
    """The label of every image; without decoding any, where the dataset can tell them."""
    from harness.data.decoding import naming_image

    reader: Any = getattr(images, "reader", None)
    if hasattr(images, "targets"):  # torchvision
        labels = images.targets
    elif hasattr(reader, "iter_targets"):  # Hugging Face
        labels = list(reader.iter_targets())
    elif hasattr(reader, "targets"):  # archives of archives
        labels = reader.targets
    elif hasattr(reader, "samples"):  # folders and archives
        labels = [sample[1] for sample in reader.samples]
    else:
        labels = []
        for index in range(len(images)):
            with naming_image(f"image {index}".__str__):
                labels.append(images[index][1])
    return np.array([int(label) for label in labels], np.int64)


def _digest(*labels: _Labels) -> str:
    return hashlib.sha256(b"\n".join(split.tobytes() for split in labels)).hexdigest()
