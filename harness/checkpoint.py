"""Checkpoints on disk: written completely or not at all, checked by digest. Imports torch where it is needed.

A run has a folder with the last two of them. Each is two files, called after its step and the number of epochs that
have ended: `STEP-EPOCHS.pt` is a state as `torch.save` writes it, `STEP-EPOCHS.json` says what it is a state of, with a
digest of both. The latter is written last.
"""

import hashlib
import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from harness.record import EpochMetrics

FORMAT = 1
"""Of both files; others are damaged to this version."""

KEPT = 2
"""The newest one, and the one before in case that is damaged."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a checkpoint without its tensors.

    Attributes:
        origin: digests of code and data, environment and initial weights: where they differ, a run cannot continue.
        run_id: of the run in the store.
        step: optimizer steps done.
        seconds: that the run took until then, without those that were lost.
        written: seconds since the epoch.
        curve: the epochs that have ended.
    """

    origin: Mapping[str, str]
    run_id: str
    step: int
    seconds: float
    written: float
    curve: tuple[EpochMetrics, ...]

    @property
    def epoch(self) -> int:
        """How many epochs have ended."""
        return len(self.curve)

    @property
    def place(self) -> str:
        """In words for people."""
        return f"after epoch {self.epoch}, step {self.step}"

    @property
    def name(self) -> str:
        """Of its files; no other checkpoint of the run has it."""
        return f"{self.step}-{self.epoch}"


def locate_checkpoints(root: Path, cell_id: str, seed: int) -> "CheckpointFolder":
    """The folder of a run below that of all checkpoints; creates nothing."""
    return CheckpointFolder(root / f"{cell_id}-{seed}")


@dataclass(frozen=True)
class CheckpointFolder:
    """The checkpoints of one run."""

    path: Path

    def find(self) -> Checkpoint | None:
        """The newest that is intact; a warning is logged for each that is not."""
        for name in self._list_names():
            found = self._read(name)
            if found is not None:
                return found
            logger.warning("the checkpoint %s is damaged", self._get_state(name))
        return None

    def peek(self) -> Checkpoint | None:
        """The newest by its header alone, in a time that does not grow with its state, which may be damaged."""
        found = (self._read(name, is_verified=False) for name in self._list_names())
        return next((checkpoint for checkpoint in found if checkpoint is not None), None)

    def read_state(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """The state of a checkpoint, on the CPU; executes no code.

        Raises:
            OSError: the file cannot be read.
            pickle.UnpicklingError: it holds more than tensors and plain values.
        """
        import torch

        state: dict[str, Any] = torch.load(self._get_state(checkpoint.name), map_location="cpu", weights_only=True)
        return state

    def write(self, checkpoint: Checkpoint, state: Mapping[str, Any]) -> None:
        """Write a checkpoint, then remove those before the last two.

        Whenever this is broken off, the newest of before is still there.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        import torch

        self.path.mkdir(parents=True, exist_ok=True)
        header = {"format": FORMAT, **asdict(checkpoint)}
        with self._drafted(self._get_state(checkpoint.name)) as file:
            stream = _DigestingStream(file, _to_text(header))
            torch.save(state, cast("BinaryIO", stream))
            stream.check()
        with self._drafted(self._get_header(checkpoint.name)) as file:
            file.write(_to_text({**header, "digest": stream.digest.hexdigest()}))
        _flush_folder(self.path)
        self._remove_others(self._list_names()[:KEPT])

    def keep(self, checkpoint: Checkpoint | None) -> None:
        """Remove all but one: what is damaged, or newer than what a run continues from, must not count any more."""
        self._remove_others([] if checkpoint is None else [checkpoint.name])

    def remove(self) -> None:
        """Remove the folder with all that is in it, as far as it can be removed."""
        import shutil

        shutil.rmtree(self.path, ignore_errors=True)

    def retire(self, run_id: str) -> None:
        """Give the folder the id of its run, which has ended, so that no other continues from it.

        Raises:
            OSError: it cannot be renamed.
        """
        if self.path.exists():
            self.path.rename(self.path.with_name(run_id))

    @contextmanager
    def _drafted(self, path: Path) -> Iterator[BinaryIO]:
        """A file that gets its name when all of it is on the disk."""
        draft = self.path / ".draft"
        try:
            with draft.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def _read(self, name: str, *, is_verified: bool = True) -> Checkpoint | None:
        try:
            header = json.loads(self._get_header(name).read_text(encoding="utf-8"))
            expected = header.pop("digest")
            if is_verified and expected != self._find_digest(name, header):
                return None
            if header.pop("format") != FORMAT:
                return None
            header["curve"] = tuple(EpochMetrics(**epoch) for epoch in header["curve"])
            return Checkpoint(**header)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def _find_digest(self, name: str, header: Mapping[str, Any]) -> str:
        digest = hashlib.sha256(_to_text(header))
        with self._get_state(name).open("rb") as file:
            while part := file.read(2**20):
                digest.update(part)
        return digest.hexdigest()

    def _list_names(self) -> list[str]:
        """Newest first; a state without its header is a draft."""
        names = [path.stem for path in self.path.glob("*-*.json") if path.stem.replace("-", "", 1).isdecimal()]
        return sorted(names, key=lambda name: [int(part) for part in name.split("-")], reverse=True)

    def _remove_others(self, kept: Collection[str]) -> None:
        for path in [*self.path.glob("*-*.json"), *self.path.glob("*-*.pt")]:
            if path.stem not in kept:
                path.unlink(missing_ok=True)

    def _get_state(self, name: str) -> Path:
        return self.path / f"{name}.pt"

    def _get_header(self, name: str) -> Path:
        return self.path / f"{name}.json"


class _DigestingStream:
    """Digests what it writes to a file; torch would hide what the system says of a full disk."""

    def __init__(self, file: BinaryIO, start: bytes) -> None:
        self.digest = hashlib.sha256(start)
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write, or keep the error for `check`."""
        if self._error is None:
            try:
                self._file.write(data)
                self.digest.update(data)
            except OSError as error:
                self._error = error
        return len(data)

    def flush(self) -> None:
        """Nothing: the file is flushed when it is complete."""

    def check(self) -> None:
        """Raise the first OSError."""
        if self._error is not None:
            raise self._error


def _to_text(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True).encode()


def _flush_folder(path: Path) -> None:
    """A file that was renamed is found after a loss of power only if its folder is flushed too."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
