import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.checkpoint import Checkpoint, CheckpointFolder, locate_checkpoints
from harness.record import EpochMetrics

CURVE = (EpochMetrics(1, 10, {"train/loss": 0.1 + 0.2, "val/top1": float("inf")}),)
FIRST = Checkpoint({"code_digest": "c0de"}, "run", step=7, seconds=1.5, written=2.5, curve=())
SECOND = replace(FIRST, step=10)
THIRD = replace(SECOND, curve=CURVE)


def make_state(step: int) -> dict[str, object]:
    return {"model": {"weight": torch.arange(1000.0) * step}, "losses": [0.1, 0.2], "step": step}


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    """With the checkpoints of three moments, of which the last two are kept."""
    folder = locate_checkpoints(tmp_path / "checkpoints", "cell", 0)
    for checkpoint in (FIRST, SECOND, THIRD):
        folder.write(checkpoint, make_state(checkpoint.step))
    return folder


def list_files(folder: CheckpointFolder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir())


def test_a_checkpoint_is_read_as_it_was_written(folder: CheckpointFolder) -> None:
    assert folder.find() == THIRD
    state = folder.read_state(THIRD)
    assert torch.equal(state["model"]["weight"], torch.arange(1000.0) * 10)
    assert (state["losses"], state["step"]) == ([0.1, 0.2], 10)


def test_the_last_two_are_kept(folder: CheckpointFolder) -> None:
    assert list_files(folder) == ["10-0.json", "10-0.pt", "10-1.json", "10-1.pt"]


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "none").find() is None


def cut(content: bytes) -> bytes:
    return content[:-100]


def flip(content: bytes) -> bytes:
    return content[:-200] + bytes([content[-200] ^ 1]) + content[-199:]


def empty(_content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("name", ["10-1.pt", "10-1.json"])
@pytest.mark.parametrize("damage", [cut, flip, empty])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_read(
    folder: CheckpointFolder, name: str, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    path = folder.path / name
    path.write_bytes(damage(path.read_bytes()))
    assert folder.find() == SECOND
    assert "10-1.pt is damaged" in caplog.text
    if name == "10-1.pt":
        assert folder.peek() == THIRD
    (folder.path / "10-0.pt").write_bytes(b"")
    assert folder.find() is None


def test_a_state_without_its_header_is_a_draft(folder: CheckpointFolder) -> None:
    (folder.path / "10-1.json").unlink()
    assert folder.find() == folder.peek() == SECOND
    folder.keep(SECOND)
    assert list_files(folder) == ["10-0.json", "10-0.pt"]


@pytest.mark.parametrize("call", range(3))
def test_whenever_writing_is_broken_off_the_newest_of_before_is_there(
    folder: CheckpointFolder, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is flushed before it gets its name, and the folder after both have it."""
    calls, flush = list[int](), os.fsync

    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == call + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        folder.write(replace(THIRD, step=12), make_state(12))
    found = folder.find()
    assert found == (replace(THIRD, step=12) if call == 2 else THIRD)
    assert ".draft" not in list_files(folder)


def test_a_full_disk_is_reported_as_the_system_does(folder: CheckpointFolder) -> None:
    """torch would report an error of its own."""
    (folder.path / ".draft").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        folder.write(replace(THIRD, step=12), make_state(12))
    assert folder.find() == THIRD


def test_a_state_that_executes_code_is_not_loaded(folder: CheckpointFolder) -> None:
    folder.write(replace(THIRD, step=12), {"path": Path("x")})
    found = folder.find()
    assert found is not None
    with pytest.raises(Exception, match="weights_only"):
        folder.read_state(found)
