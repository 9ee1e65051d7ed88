"""Images in tar archives, `train/*.tar` and `val/*.tar`: few large files, as network disks prefer them.

The archives `val/*.tar` are the test set. There are two layouts:

* As WebDataset writes them: `KEY.jpg` (or another image format) and `KEY.cls`, the number of its class as text. Members
  with other endings are ignored.
* Without any `.cls`: `CLASS/NAME.jpg`, the files of an image folder in archives. Classes are numbered by name.

An index has the place of every image in its archive, so that images are read one by one in any order. They are
numbered by class, folder and name, as in `image_folder`: however the same images are stored, in shuffled archives or as
files, batches are equal bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.data.archive import label_images, read_archive
from harness.data.checks import check_augmentation, check_classes, check_counts, check_shape
from harness.data.family import Data, Description, Statistics
from harness.data.folder import digest_names, list_files
from harness.data.index import SPLITS, Columns, Names, Watch, discard_index, get_digest, make_splits, read_index
from harness.errors import DataError
from harness.spec import DataSpec, TrainingSpec

if TYPE_CHECKING:
    import torch
    from PIL import Image

INDEX = "image_shards"

READERS = 8
"""How many archives are read at once: a network disk answers each of them late."""

statistics: Statistics = None


@dataclass(frozen=True)
class _ArchivedImages:
    """The images of a split, decoded when they are asked for.

    Attributes:
        data_dir: where the split lies.
        archives: the names of the archives.
        archive_sizes: of the archives, in bytes.
        archive_times: when each of them was modified, in nanoseconds.
        names: of the images, with their folder in the archive.
        numbers: of the archive of each image.
        offsets: of each image in its archive.
        sizes: of the images, in bytes.
        labels: of each image, the number of its class.
        classes: their names; empty where `.cls` number them.
    """

    data_dir: Path
    split: str
    archives: Names
    archive_sizes: NDArray[np.int64]
    archive_times: NDArray[np.int64]
    names: Names
    numbers: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: Names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]:
        """Decode an image.

        Raises:
            DataError: its archive has changed since it was indexed.
        """
        from harness.data.decoding import open_image

        number = int(self.numbers[index])
        path = self._find_archive(number)
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if (status.st_size, status.st_mtime_ns) != (self.archive_sizes[number], self.archive_times[number]):
                discard_index(self.data_dir, INDEX)
                raise DataError(f"{path} has changed since it was indexed; run the command again")
            file.seek(self.offsets[index])
            content = file.read(self.sizes[index])
        return open_image(BytesIO(content)), int(self.labels[index])

    def find_name(self, index: int, /) -> str:
        return f"{self._find_archive(int(self.numbers[index]))}: {self.names[index]}"

    def _find_archive(self, number: int) -> Path:
        return self.data_dir / self.split / self.archives[number]


def check_data(spec: DataSpec, training: TrainingSpec, *, data_dir: Path | None) -> None:
    """Both folders have archives that are whole, with the recipe's number of classes, the same in both."""
    train, test = _find_images(data_dir)
    check_classes(train.classes, test.classes, data_dir)
    check_shape(spec, num_classes=int(train.labels.max()) + 1, channels=3)
    if test.labels.max() >= spec.num_classes:
        raise DataError(f"{train.data_dir / 'val'} has class {test.labels.max()}, train/ ends at {train.labels.max()}")
    check_counts(spec, training, num_train=len(train), num_test=len(test))
    check_augmentation(spec, training, unsupported=("shift",))


def load_data(
    spec: DataSpec, training: TrainingSpec, *, replicate: int, data_dir: Path | None, device: torch.device
) -> Data:
    """Prepare loaders; images are read and decoded as batches are asked for."""
    from harness.data.streaming import LabelledImages, StreamedData

    train, test = (LabelledImages(images, images.labels) for images in _find_images(data_dir))
    drawn = spec.model_copy(update={"name": "image_folder"})  # names seed samples: here those of a folder
    return StreamedData(drawn, training, train, test, digest=digest_files(data_dir), replicate=replicate, device=device)


def digest_files(data_dir: Path | None, _spec: DataSpec | None = None, /) -> str:
    """Of the images' names, sizes and classes, in whichever archives they lie: reading all of them takes too long."""
    return get_digest(_read_index(data_dir))


def describe(data_dir: Path | None, _spec: DataSpec | None = None, /) -> Description:
    """How many images and classes there are in `data_dir`."""
    location = "" if data_dir is None else str(data_dir)
    try:
        train, test = _find_images(data_dir)
    except DataError as error:
        return Description("image_shards", location, usable=False, state=str(error))
    return Description(
        "image_shards",
        location,
        usable=True,
        state=f"{train.labels.max() + 1} classes in {len(train.archives) + len(test.archives)} archives",
        num_train=len(train),
        num_test=len(test),
        num_bytes=int(train.archive_sizes.sum() + test.archive_sizes.sum()),
        digest=digest_files(data_dir),
    )


def fetch(data_dir: Path | None) -> Iterator[str]:  # noqa: ARG001 - what every family is asked
    """Nothing: they are the user's."""
    return iter(())


def _require_folder(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise DataError(
            "image_shards reads your archives: give the folder with train/*.tar and val/*.tar by --data DIR"
        )
    return data_dir


def _find_images(data_dir: Path | None) -> tuple[_ArchivedImages, _ArchivedImages]:
    """What is trained on, and the test set."""
    return make_splits(_ArchivedImages, _require_folder(data_dir), _read_index(data_dir))


def _read_index(data_dir: Path | None) -> Columns:
    folder = _require_folder(data_dir)
    return read_index(folder, INDEX, partial(_list_images, folder))


def _list_images(data_dir: Path, watch: Watch) -> Columns:
    """The columns of `_ArchivedImages` for both splits, and the digest of all images."""
    columns, digested = dict[str, Any](), list[tuple[str, int]]()
    for split in SPLITS:
        folder = data_dir / split
        if not folder.is_dir():
            raise DataError(f"{folder} is missing: --data DIR needs train/*.tar and val/*.tar")
        names = [name for name, _ in list_files(folder, (".tar",), watch)]
        statuses = [watch.add(folder / name) for name in names]
        with ThreadPoolExecutor(READERS) as readers:
            archives = list(readers.map(read_archive, count(), [folder / name for name in names]))
        if not any(archive.images for archive in archives):
            raise DataError(f"{folder} has no images in archives (*.tar, not compressed)")
        images, classes = label_images(archives)
        found: dict[str, Any] = {
            "archives": Names.pack(names),
            "archive_sizes": np.array([status.st_size for status in statuses], np.int64),
            "archive_times": np.array([status.st_mtime_ns for status in statuses], np.int64),
            "names": Names.pack(image.path for _, image in images),
            "numbers": np.array([image.number for _, image in images], np.int64),
            "offsets": np.array([image.offset for _, image in images], np.int64),
            "sizes": np.array([image.size for _, image in images], np.int64),
            "labels": np.array([label for label, _ in images], np.int64),
            "classes": Names.pack(classes),
        }
        columns |= {f"{split}/{name}": column for name, column in found.items()}
        digested += [(f"{split}/{label}/{image.path}", image.size) for label, image in images]
    return {**columns, "digest": Names.pack([digest_names(digested)])}
