"""Folders of image files, and a cache of their indexes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data import index
from tests.harness.data.shards import CLASSES
from tests.pictures import write_pictures


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No index outlives a test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that were written a moment ago count as old."""
    monkeypatch.setattr(index, "NANOSECONDS_TO_SETTLE", -(10**12))


@pytest.fixture
def write_images(tmp_path: Path) -> Callable[[str], Path]:
    """Makes `train/` with 8 and `val/` with 3 images of each class, of the format that a suffix names."""

    def write(suffix: str) -> Path:
        return write_pictures(tmp_path, train=8, val=3, size=(40, 52), suffix=suffix, classes=CLASSES)

    return write
