"""Events of a job as frames in files of a folder that hosts share: one writer, one reader, neither waits.

Every attempt of a job has a file of its own. A frame is the length of a pickle and the pickle; the file is flushed to
the disk after each, so that a reader on another host sees it. An attempt that was killed may leave half a frame.
"""

import os
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_LENGTH = struct.Struct("<Q")


class Sender:
    """Writes the frames of one attempt."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = _locate(folder, _count_attempts(folder)).open("xb")

    def send(self, payload: object) -> None:
        """Write a frame at once."""
        content = pickle.dumps(payload)
        self._file.write(_LENGTH.pack(len(content)) + content)
        self._file.flush()
        os.fsync(self._file.fileno())


class Receiver:
    """Reads the frames of the newest attempt, and of those after it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._attempt = max(0, _count_attempts(folder) - 1)
        self._read = 0

    def receive(self) -> Iterator[Any]:
        """The complete frames since the last call."""
        while True:
            yield from self._receive_attempt()
            if not _locate(self._folder, self._attempt + 1).exists():
                return
            yield from self._receive_attempt()  # what came before the next attempt began
            self._attempt, self._read = self._attempt + 1, 0

    def _receive_attempt(self) -> Iterator[Any]:
        path = _locate(self._folder, self._attempt)
        if not path.exists():
            return
        with path.open("rb") as file:  # each time anew: a network file system then asks its server
            file.seek(self._read)
            while len(head := file.read(_LENGTH.size)) == _LENGTH.size:
                (length,) = _LENGTH.unpack(head)
                content = file.read(length)
                if len(content) < length:
                    return
                self._read += _LENGTH.size + length
                yield pickle.loads(content)


def _count_attempts(folder: Path) -> int:
    number = 0
    while _locate(folder, number).exists():
        number += 1
    return number


def _locate(folder: Path, attempt: int) -> Path:
    return folder / f"attempt-{attempt}.frames"
