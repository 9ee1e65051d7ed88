"""Any dataset that timm can open by a string, `data.source`: `hfds/NAME`, `tfds/NAME`, `wds/NAME`, `torch/cifar10`, ...

`--data DIR` is timm's `root`: the folder, or the cache, that holds it. `data.train_split` and `data.test_split` are the
dataset's own names. Images are decoded and augmented one by one, as those of `image_folder` are. A dataset that can be
read from its beginning only (tfds, wds, hfids) is read into memory, so that order and samples are ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.data.checks import check_augmentation, check_counts, check_shape
from harness.data.family import Data, Description
from harness.errors import DataError
from harness.spec import DataSpec, TrainingSpec

if TYPE_CHECKING:
    import torch

NO_SOURCE = "a recipe names any dataset of timm by its string, data.source"

_Labels = NDArray[np.int64]


def check_data(spec: DataSpec, training: TrainingSpec, *, data_dir: Path | None) -> None:
    """Timm opens both splits, and every label is one of the recipe's classes."""
    check_shape(spec, channels=3)
    train, test = _read_splits(spec, data_dir)
    for split, labels in ((spec.train_split, train), (spec.test_split, test)):
        if len(labels) and not 0 <= labels.min() <= labels.max() < spec.num_classes:
            found = f"labels {labels.min()} to {labels.max()}"
            raise DataError(
                f"data.num_classes: {split} of {spec.source} has {found}, the recipe says {spec.num_classes}"
            )
    check_counts(spec, training, num_train=len(train), num_test=len(test))
    check_augmentation(spec, training, unsupported=("shift",))


def load_data(
    spec: DataSpec, training: TrainingSpec, *, replicate: int, data_dir: Path | None, device: torch.device
) -> Data:
    """Prepare loaders; images are decoded as batches are asked for."""
    from harness.data.streaming import LabelledImages, StreamedData

    train, test = (
        LabelledImages(images, read_labels(images))
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


def _read_splits(spec: DataSpec, data_dir: Path | None) -> tuple[_Labels, _Labels]:
    return _read_split(spec, spec.train_split, data_dir), _read_split(spec, spec.test_split, data_dir)


@cache
def _read_split(spec: DataSpec, split: str, data_dir: Path | None) -> _Labels:
    return read_labels(_open(spec, split, data_dir))


def _open(spec: DataSpec, split: str, data_dir: Path | None) -> Any:
    """Something with a length whose items are (image, label)."""
    from timm.data import ImageDataset, create_dataset
    from torch.utils.data import IterableDataset

    if spec.source is None:
        raise DataError(f"data.source is missing: {NO_SOURCE}")
    root = None if data_dir is None else str(data_dir)
    try:
        images = create_dataset(spec.source, root=root, split=split)
        if isinstance(images, IterableDataset):
            return list(images)
    except (AssertionError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        where = "--data DIR was not given" if data_dir is None else f"--data {data_dir}"
        raise DataError(f"timm cannot open split {split!r} of {spec.source!r} ({where}): {error}") from error
    if isinstance(images, ImageDataset):
        images._max_retries = 1  # timm would put another image in the place of one that is damaged
    return images


def read_labels(images: Any) -> _Labels:
    """The label of every image; without decoding any, where the dataset can tell them."""
    reader: Any = getattr(images, "reader", None)
    if hasattr(images, "targets"):  # torchvision
        labels = images.targets
    elif hasattr(reader, "iter_targets"):  # Hugging Face
        labels = list(reader.iter_targets())
    elif hasattr(reader, "samples"):  # folders and archives
        labels = [sample[1] for sample in reader.samples]
    else:
        labels = [images[index][1] for index in range(len(images))]
    return np.array([int(label) for label in labels], np.int64)


def _digest(*labels: _Labels) -> str:
    return hashlib.sha256(b"\n".join(split.tobytes() for split in labels)).hexdigest()
