"""Copies of the sources with edits, and what cells compute by them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = Path("harness", "data", "files")
PACKAGES = ("harness", "paradigms")


@dataclass(frozen=True)
class Change:
    """A text of a file that becomes another one; without a text to replace, what is added at the end of the file.

    Attributes:
        times: how often the file holds `old`; a file that does not is a test out of date.
    """

    file: str
    old: str
    new: str
    times: int = 1


@dataclass(frozen=True)
class Edit:
    """Changes that belong together, and the cell that shows what they do; see `CELLS` of the test.

    Attributes:
        is_in_digest: whether the code digest of the cell covers what is changed.
    """

    name: str
    changes: tuple[Change, ...]
    cell: str = "window"
    is_in_digest: bool = True


def edit(name: str, file: str, old: str, new: str, **options: Any) -> Edit:
    """An edit of one change."""
    change = Change(file, old, new, times=options.pop("times", 1))
    return Edit(name, (change,), **options)


def copy_sources(folder: Path) -> None:
    """Both packages with the compiled library, and the experiments; images are linked."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=_leave_out_images)
    (folder / DATA).symlink_to(ROOT / DATA)
    (folder / "experiments").symlink_to(ROOT / "experiments")


def _leave_out_images(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder, name) == ROOT / DATA]


@contextmanager
def edited(folder: Path, changes: Sequence[Change]) -> Iterator[None]:
    """Inside, the copy has the changes."""
    before: dict[Path, str | None] = {}
    try:
        for change in changes:
            path = folder / change.file
            text = path.read_text() if path.exists() else ""
            before.setdefault(path, text if path.exists() else None)
            found = text.count(change.old) if change.old else 1
            assert found == change.times, f"{change.file} has {found} times, not {change.times}: {change.old!r}"
            _write(path, text.replace(change.old, change.new) if change.old else text + change.new)
        yield
    finally:
        for path, original in before.items():
            if original is None:
                path.unlink()
            else:
                _write(path, original)


def _write(path: Path, text: str) -> None:
    """Python tells by a time in whole seconds whether what it has compiled is out of date."""
    path.write_text(text)
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        compiled.unlink()


class Server:
    """The process of `tests.edits.server`."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-P", str(Path(__file__).with_name("server.py"))]
        self._process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def rehearse(self, root: Path, *cells: dict[str, Any]) -> list[dict[str, str]]:
        """The answers of `tests.edits.server.rehearse`, by the sources under `root`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"root": str(root), "cells": cells}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the server has ended"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return list(answer["cells"])

    def close(self) -> None:
        """The process ends with its input."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
