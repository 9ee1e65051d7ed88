"""Keeps what the folders of a dataset contain, so that a million files are listed once. Imports no torch.

An index is a file in the user's cache. It is valid as long as everything that was read to make it is the same: a
folder or an archive counts as the same while its inode and its times of modification and change are, an archive while
its size is too. Folders that changed during the last seconds before they were read are listed again: a later change
may have the same time. A rewritten image file changes its size, not the times of its folder. So the size is compared
where the image is read.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from stat import S_ISREG
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.files import find_cache, write_cached

Images = TypeVar("Images")

SPLITS = ("train", "val")
"""The folders of a dataset's training set and of its test set."""

NANOSECONDS_TO_SETTLE = 2_000_000_000
"""Two changes within this time may have the same time: that of FAT, the coarsest in use."""

DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Names:
    """Many names in two arrays: little memory, which loading processes share.

    Attributes:
        text: the bytes of all names, one after another.
        ends: where each of them ends.
    """

    text: NDArray[np.uint8]
    ends: NDArray[np.int64]

    @classmethod
    def pack(cls, names: Iterable[str]) -> Self:
        """Names that need not be UTF-8."""
        encoded = [os.fsencode(name) for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int, /) -> str:
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.text[start : self.ends[index]].tobytes())

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


Columns = Mapping[str, Any]
"""What an index contains: names or arrays of numbers, by what they are."""

Stamp = tuple[int, int, int, int]
"""Inode, size of a file (0 of a folder), times of modification and change."""


@dataclass(frozen=True)
class Watch:
    """The folders and archives that an index depends on.

    Attributes:
        stamps: of each path.
    """

    stamps: dict[str, Stamp] = field(default_factory=dict)

    def add(self, path: Path) -> os.stat_result:
        """Remember how a path is now; call it before the path is read.

        Raises:
            OSError: there is no such file.
        """
        status = path.stat()
        self.stamps[str(path.absolute())] = _stamp(status)
        return status

    def is_current(self) -> bool:
        """Whether all of them are still the same."""
        return all(_find_stamp(Path(path)) == stamp for path, stamp in self.stamps.items())

    def is_settled(self, now: int) -> bool:
        """Whether a change from `now` on (in ns) would show; never where a file system keeps no times of folders."""
        times = [time for stamp in self.stamps.values() for time in stamp[2:]]
        return min(times) > 0 and max(times) < now - NANOSECONDS_TO_SETTLE


def read_index(folder: Path, kind: str, make: Callable[[Watch], Columns]) -> Columns:
    """What `make` finds in a folder: from memory or from the cache while it is valid, else it is found again.

    Where the cache cannot be read or written, or a file in it is damaged, the folder is read again.

    Args:
        folder: of the dataset.
        kind: what is made of the folder: one folder may have several indexes.
        make: reads the folder, and has everything watched that it reads.
    """
    file = _locate(folder, kind)
    stamp = _find_stamp(file)
    known_stamp, known = _known.get(file, (None, None))
    found = known if known is not None and known_stamp == stamp else _load(file)
    if found is None or not found[0].is_current():
        watch, now = Watch(), time.time_ns()
        found = watch, make(watch)
        if not watch.is_settled(now):
            _known.pop(file, None)
            return found[1]
        _store(file, *found)
        stamp = _find_stamp(file)
    _known[file] = stamp, found
    return found[1]


def discard_index(folder: Path, kind: str) -> None:
    """Have a folder listed again by whoever needs it next, in any process."""
    file = _locate(folder, kind)
    _known.pop(file, None)
    with suppress(OSError):
        file.unlink(missing_ok=True)


def make_splits(make: Callable[..., Images], data_dir: Path, columns: Columns) -> tuple[Images, Images]:
    """The training set and the test set, as `make(data_dir, split, **columns)` has them; columns are `SPLIT/NAME`."""
    train, test = (make(data_dir, split, **_select_columns(columns, split)) for split in SPLITS)
    return train, test


def get_digest(columns: Columns) -> str:
    """The digest of everything that was listed, the only entry of the column `digest`."""
    (digest,) = columns["digest"]
    return str(digest)


def _select_columns(columns: Columns, split: str) -> dict[str, Any]:
    prefix = f"{split}/"
    return {name.removeprefix(prefix): column for name, column in columns.items() if name.startswith(prefix)}


_known: dict[Path, tuple[Stamp | None, tuple[Watch, Columns]]] = {}
"""What this process has read, by the file of the index, with that file's stamp (None: it could not be written). It is
forgotten where another process has written or discarded the file."""


def _locate(folder: Path, kind: str) -> Path:
    digest = hashlib.sha256(os.fsencode(f"{kind}\n{folder.resolve()}")).hexdigest()
    return find_cache() / "indexes" / f"{digest[:32]}.npz"


def _store(path: Path, watch: Watch, columns: Columns) -> None:
    """Write an index behind its digest; whoever writes last wins, and a reader sees one or the other."""
    stamps = np.array(list(watch.stamps.values()), np.int64)
    stored = {**columns, "watched": Names.pack(watch.stamps), "stamps": stamps, "code": Names.pack([_digest_code()])}
    arrays: dict[str, NDArray[Any]] = {}
    for name, column in stored.items():
        if isinstance(column, Names):
            arrays |= {f"{name}.text": column.text, f"{name}.ends": column.ends}
        else:
            arrays[name] = column
    content = BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    write_cached(path, hashlib.sha256(content.getbuffer()).digest() + content.getvalue())


def _load(path: Path) -> tuple[Watch, Columns] | None:
    """A stored index; None where there is none, it is damaged, or other code has made it."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[DIGEST_BYTES:]).digest() != content[:DIGEST_BYTES]:
        return None
    with np.load(BytesIO(content[DIGEST_BYTES:]), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    names = [name.removesuffix(".text") for name in arrays if name.endswith(".text")]
    columns = {name: Names(arrays.pop(f"{name}.text"), arrays.pop(f"{name}.ends")) for name in names}
    if list(columns.pop("code")) != [_digest_code()]:
        return None
    stamps = [tuple(stamp) for stamp in arrays.pop("stamps").tolist()]
    return Watch(dict(zip(columns.pop("watched"), stamps, strict=True))), {**columns, **arrays}


@cache
def _digest_code() -> str:
    """Of this folder's modules: another rule of listing makes another index."""
    content = b"\n".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(content).hexdigest()


def _find_stamp(path: Path) -> Stamp | None:
    """The stamp of a file or folder as it is now; None where there is none."""
    try:
        return _stamp(path.stat())
    except OSError:
        return None


def _stamp(status: os.stat_result) -> Stamp:
    size = status.st_size if S_ISREG(status.st_mode) else 0
    return status.st_ino % 2**63, size, status.st_mtime_ns, status.st_ctime_ns
