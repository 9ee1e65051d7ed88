"""Fashion-MNIST (arXiv:1708.07747): 70,000 gray 28x28 images of 10 kinds of clothes; ships with the package."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from harness.data.checks import check_augmentation, check_counts, check_shape
from harness.data.family import Data, Description
from harness.errors import DataError
from harness.spec import DataSpec, TrainingSpec

if TYPE_CHECKING:
    import torch

SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
NUM_TRAIN, NUM_TEST, NUM_CLASSES, IMAGE_SIZE = 60_000, 10_000, 10, 28
MEAN, STD = 0.2860, 0.3530
"""Of all pixels of the training set, in [0, 1]."""

statistics = MEAN, STD

_Bytes = NDArray[np.uint8]


def check_data(spec: DataSpec, training: TrainingSpec, *, data_dir: Path | None) -> None:
    """The four files are there, and the recipe asks for 28x28 gray images changed as a batch."""
    check_shape(spec, num_classes=NUM_CLASSES, channels=1, image_size=IMAGE_SIZE)
    check_counts(spec, training, num_train=NUM_TRAIN, num_test=NUM_TEST)
    check_augmentation(spec, training, unsupported=("scale", "interpolation", "auto_augment", "color_jitter"))
    _require_files(_folder(data_dir))


def load_data(
    spec: DataSpec, training: TrainingSpec, *, replicate: int, data_dir: Path | None, device: torch.device
) -> Data:
    """Decode the files, checked by digest, and take the recipe's samples of them."""
    from harness.data.memory import MemoryData, take_splits

    digest = digest_files(data_dir)
    train, test = read_arrays(data_dir, "train"), read_arrays(data_dir, "test")
    splits = take_splits(spec, train, test, replicate=replicate, mean=MEAN, std=STD)
    return MemoryData(spec, training, splits, digest=digest, replicate=replicate, device=device)


def read_arrays(data_dir: Path | None, split: Literal["train", "test"]) -> tuple[_Bytes, _Bytes]:
    """Images (images, 1, 28, 28) and labels (images,) of a split.

    Raises:
        DataError: a file is missing or damaged.
    """
    folder, prefix = _folder(data_dir), "train" if split == "train" else "t10k"
    _require_files(folder)
    return _read_images(folder, prefix), _read_labels(folder, prefix)


def digest_files(data_dir: Path | None, _spec: DataSpec | None = None, /) -> str:
    """The same for every folder: files with another content are refused when they are read."""
    _require_files(_folder(data_dir))
    return hashlib.sha256("\n".join(SHA256.values()).encode()).hexdigest()


def describe(data_dir: Path | None, _spec: DataSpec | None = None, /) -> Description:
    """Where the files are and whether their digests match."""
    folder = _folder(data_dir)
    try:
        num_bytes = _check_files(folder)
    except DataError as error:
        return Description("fashion_mnist", str(folder), usable=False, state=str(error))
    return Description(
        "fashion_mnist",
        str(folder),
        usable=True,
        state="complete, digests match",
        num_train=NUM_TRAIN,
        num_test=NUM_TEST,
        num_bytes=num_bytes,
        digest=digest_files(data_dir),
    )


def fetch(data_dir: Path | None) -> Iterator[str]:  # noqa: ARG001 - what every family is asked
    """Nothing: they ship with the package."""
    return iter(())


def _folder(data_dir: Path | None) -> Traversable:
    return resources.files("harness.data") / "files" / "fashion_mnist" if data_dir is None else data_dir


def _require_files(folder: Traversable) -> None:
    missing = [name for name in SHA256 if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"Fashion-MNIST is not complete in {folder}: {', '.join(missing)} missing; "
            "the four files ship with the package, --data DIR names another folder that holds them"
        )


def _check_files(folder: Traversable) -> int:
    """The size of all files, once they are known to be the published ones."""
    _require_files(folder)
    return sum(len(_read_checked(folder, name)) for name in SHA256)


def _read_checked(folder: Traversable, name: str) -> bytes:
    content = (folder / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[name]:
        raise DataError(f"{folder / name} is damaged: its sha256 is {digest}, not {SHA256[name]}")
    return content


def _read_images(folder: Traversable, split: str) -> _Bytes:
    pixels = gzip.decompress(_read_checked(folder, f"{split}-images-idx3-ubyte.gz"))
    return np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 1, IMAGE_SIZE, IMAGE_SIZE)


def _read_labels(folder: Traversable, split: str) -> _Bytes:
    return np.frombuffer(gzip.decompress(_read_checked(folder, f"{split}-labels-idx1-ubyte.gz")), np.uint8, offset=8)
