"""Lists the images in tar archives, where their bytes lie, and the class of each. Imports no torch."""

import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from harness.data.folder import IMAGE_SUFFIXES
from harness.errors import DataError

SAMPLE = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)")
"""A member of an archive by WebDataset's rule: the key ends at the first dot of the name."""

LONGEST_LABEL = 9
"""Bytes of a `.cls`."""

READ_ERRORS = (ArithmeticError, EOFError, LookupError, OSError, ValueError, tarfile.TarError)
"""What the standard library raises for damaged archives."""


class ArchivedImage(NamedTuple):
    """An image in an archive.

    Attributes:
        folder: that it lies in, within the archive; empty for none.
        name: of the file.
        number: of the archive.
        offset: where its bytes begin.
        size: their number.
    """

    folder: str
    name: str
    number: int
    offset: int
    size: int

    @property
    def path(self) -> str:
        """Within the archive."""
        return f"{self.folder}/{self.name}" if self.folder else self.name


@dataclass(frozen=True)
class Archive:
    """What an archive contains.

    Attributes:
        images: every file with the ending of an image.
        labels: what each `KEY.cls` says, by its key.
    """

    path: Path
    images: list[ArchivedImage]
    labels: dict[str, int]


def read_archive(number: int, path: Path) -> Archive:
    """List an archive to its end.

    Raises:
        DataError: it is compressed, damaged or cut off, or has a member that cannot be used.
    """
    archive = Archive(path, [], {})
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined] # it would keep all of them
                _add_member(archive, number, member, file)
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"no member and no end of the archive at byte {tar.offset:,}")
    except READ_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(f"{path} is no tar archive, damaged or cut off: {reason}; restore it, uncompressed") from error
    return archive


def _add_member(archive: Archive, number: int, member: tarfile.TarInfo, file: IO[bytes]) -> None:
    """Enter a member of an archive, which `file` reads."""
    place = PurePosixPath(member.name)
    is_image, is_label = place.suffix.lower() in IMAGE_SUFFIXES, place.suffix.lower() == ".cls"
    if member.isdir() or not (is_image or is_label):
        return
    if not member.isreg() or member.issparse():
        raise DataError(f"{archive.path}: {place} is a link or no plain file; archive the file itself")
    if is_image:
        folder = "" if place.parent == PurePosixPath() else str(place.parent)
        archive.images.append(ArchivedImage(folder, place.name, number, member.offset_data, member.size))
        return
    key, _ = _split_name(str(place))
    file.seek(member.offset_data)
    text = file.read(min(member.size, LONGEST_LABEL + 1))
    if key is None or len(text) > LONGEST_LABEL or not text.strip().isdigit():
        raise DataError(f"{archive.path}: {place} must contain the number of a class, got {text!r}")
    if key in archive.labels:
        raise DataError(f"{archive.path}: {place} is there twice; keep one of them")
    archive.labels[key] = int(text)


def label_images(archives: Sequence[Archive]) -> tuple[list[tuple[int, ArchivedImage]], list[str]]:
    """Each image with the number of its class, sorted; and the names of the classes, none where `.cls` number them.

    Raises:
        DataError: an image has no class, or a `.cls` not exactly one image.
    """
    by_text = any(archive.labels for archive in archives)
    labelled, classes = (_label_by_text if by_text else _label_by_folder)(archives)
    return sorted(labelled), classes


def _label_by_text(archives: Sequence[Archive]) -> tuple[list[tuple[int, ArchivedImage]], list[str]]:
    """Labels from the `.cls` beside each image."""
    labelled = []
    for archive in archives:
        missing = dict(archive.labels)
        for image in archive.images:
            key, ending = _split_name(image.path)
            if f".{ending}" not in IMAGE_SUFFIXES:
                continue
            if key not in archive.labels:
                raise DataError(f"{archive.path}: {image.path} has no {key}.cls, as other images have")
            if key not in missing:
                raise DataError(f"{archive.path}: {key}.cls has more than one image; keep one")
            labelled.append((missing.pop(key), image))
        if missing:
            raise DataError(f"{archive.path}: {next(iter(missing))}.cls has no image; remove it or restore the image")
    return labelled, []


def _label_by_folder(archives: Sequence[Archive]) -> tuple[list[tuple[int, ArchivedImage]], list[str]]:
    """Labels from the first folder of each image, and the names of the classes."""
    found = [(archive, image) for archive in archives for image in archive.images]
    for archive, image in found:
        if not image.folder:
            raise DataError(f"{archive.path}: {image.name} has no .cls beside it, and no folder of its class")
    classes = sorted({image.folder.partition("/")[0] for _, image in found})
    numbers = {name: number for number, name in enumerate(classes)}
    return [(numbers[image.folder.partition("/")[0]], image) for _, image in found], classes


def _split_name(path: str) -> tuple[str | None, str]:
    """A member's name as WebDataset takes it: the key, which ends at the first dot of the file, and the ending."""
    match = SAMPLE.fullmatch(path)
    return (None, "") if match is None else (match[1], match[2].lower())
