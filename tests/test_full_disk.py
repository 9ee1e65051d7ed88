"""A table is made on a disk that is full again and again, at known moments of the command.

The disk is a tmpfs, which only root can mount. The table in the end must be that of a disk with space.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from tests.test_end_to_end import make_desk
from tests.test_faults import COMMAND, require_equal

pytestmark = pytest.mark.slow

DISK_BYTES = 64_000_000
MOMENTS = ("two: Two rows", "rehearsing", "epoch 2/12", "[2/4]", "epoch 6/12", "[4/4]")
"""What the command has printed last when the disk becomes full; each call continues what the one before has left."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the space that is left."""
    path = folder / "filler"
    with path.open("wb") as file:
        while free := shutil.disk_usage(folder).free:
            with suppress(OSError):  # less is left, since the command goes on
                os.posix_fallocate(file.fileno(), path.stat().st_size, free)
    return path


def read_until(lines: IO[str], text: str) -> str:
    """What is printed up to the first line with this text, or all of it."""
    read = ""
    for line in lines:
        read += line
        if text in line:
            break
    return read


def test_a_table_is_the_same_on_a_disk_that_is_full_again_and_again(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    undisturbed, desk = make_desk(tmp_path / "large"), make_desk(small_disk)
    undisturbed.harness(*COMMAND)
    met, codes = [], []
    for moment in MOMENTS:
        call = desk.start(*COMMAND, "--workers", "1")
        assert call.stdout is not None
        output = read_until(call.stdout, moment)
        filler = fill(small_disk)
        rest, errors = call.communicate(timeout=240)
        filler.unlink()
        report = f"{moment}\n{output}{rest}\n{errors}"
        met.append(moment in output)
        codes.append(call.returncode)
        assert call.returncode in (0, 2), report
        assert "Traceback" not in errors, report
        if call.returncode == 2:
            assert "full" in errors.splitlines()[-1] or "No space left" in errors.splitlines()[-1], report
    assert all(met), [moment for moment, was_met in zip(MOMENTS, met, strict=True) if not was_met]
    assert 2 in codes
    desk.harness(*COMMAND)
    require_equal(desk, undisturbed)
