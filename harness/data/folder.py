"""Lists the files below a folder of a dataset. Imports no torch.

One rule for what is not a plain file or folder: links are followed; a link that leads nowhere, or to a folder that it
lies in, is refused by its name, and so are folders that cannot be read and names of images that are no files (pipes,
devices). A name that is not UTF-8 is a name like any other.
"""

import hashlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from harness.data.index import Watch
from harness.errors import DataError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

Files = list[tuple[str, int]]
"""Path below a folder, with slashes, and size in bytes."""


def list_classes(folder: Path, watch: Watch) -> list[str]:
    """The names of the folders in a folder, sorted; an index that `watch` is of depends on it.

    Raises:
        DataError: by the rule of this module.
    """
    entries, _ = _scan(folder, watch)
    return sorted(entry.name for entry in entries if _is_folder(entry))


def list_files(folder: Path, suffixes: Collection[str], watch: Watch) -> Files:
    """All files below a folder with one of some suffixes, which are in lower case.

    They are sorted by folder and then by name, as torchvision lists a class's images. An index that `watch` is of
    depends on all the folders.

    Raises:
        DataError: by the rule of this module.
    """
    found: dict[str, Files] = {}
    waiting = [("", frozenset[tuple[int, int]]())]
    while waiting:
        place, above = waiting.pop()
        entries, status = _scan(folder / place, watch)
        identity = status.st_dev, status.st_ino
        if identity in above:
            raise DataError(f"{folder / place} links to a folder that contains it; remove the link")
        prefix = f"{place}/" if place else ""
        found[place] = []
        for entry in entries:
            if _is_folder(entry):
                waiting.append((prefix + entry.name, above | {identity}))
            elif Path(entry.name).suffix.lower() in suffixes:
                found[place].append((prefix + entry.name, _measure(entry)))
    return [file for place in sorted(found) for file in sorted(found[place])]


def digest_names(files: Iterable[tuple[str, int]]) -> str:
    """SHA-256 of names and sizes, in hexadecimal digits: names count by their bytes."""
    lines = "\n".join(f"{name} {size}" for name, size in files)
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def _scan(folder: Path, watch: Watch) -> tuple[list[os.DirEntry[str]], os.stat_result]:
    """What is in a folder, and its status from before it was read."""
    try:
        status = watch.add(folder)
        with os.scandir(folder) as entries:
            return list(entries), status
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return S_ISDIR(entry.stat().st_mode)
    except OSError as error:
        reason = "is a broken link" if entry.is_symlink() else f"cannot be read: {error.strerror}"
        raise DataError(f"{entry.path} {reason}; remove it or restore it") from None


def _measure(entry: os.DirEntry[str]) -> int:
    """The size of a file."""
    status = entry.stat()
    if not S_ISREG(status.st_mode):
        raise DataError(f"{entry.path} is not a file; remove it")
    return status.st_size
