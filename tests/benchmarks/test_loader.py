"""The benchmark of loading measures both ways of storing images, and writes no result of a busy machine."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from benchmarks import load, loader, photographs
from benchmarks.loader import Case
from benchmarks.photographs import NUM_CLASSES, pack_shards, write_folder
from harness.data import image_folder, image_shards

CASES = (Case("image_folder", 1, "imagenet"), Case("image_shards", 1, "none"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(photographs, "DISTINCT", 2)
    monkeypatch.setattr(loader, "CASES", CASES)
    monkeypatch.setattr(loader, "BATCH_SIZE", 8)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("foreign", [0.0, 1.5], ids=["idle", "busy"])
def test_every_case_is_measured(
    foreign: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load, "measure_load", lambda _, **__: foreign)
    monkeypatch.setattr(loader, "foreign_cores", lambda *_: foreign)
    code = loader.main(["--images", "64", "--rounds", "1", "--allow-load", "--output", str(tmp_path / "bench")])
    assert code == (1 if foreign else 0)
    (csv,), (markdown,) = (tmp_path.glob(f"bench/loader-*.{suffix}") for suffix in ("csv", "md"))
    frame = pd.read_csv(csv)
    assert list(zip(frame["family"], frame["loading_workers"], frame["augmentation"], strict=True)) == [
        (case.family, case.workers, case.augmentation) for case in CASES
    ]
    assert (frame["images_per_second"] > 0).all()
    assert ("Loaded: not a result" in markdown.read_text()) == bool(foreign)
    assert "round 1: image_folder, 1 loading, augmentation imagenet: " in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_a_busy_machine_is_told_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(load, "measure_load", lambda _, **__: 1.5)
    assert loader.main([]) == 2
    assert "the machine is busy, others use 1.50 of a core" in capsys.readouterr().err
    assert loader.main(["--images", "8"]) == 2
    assert "--images: at least 64, got 8" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_photographs_have_the_size_of_imagenets_and_are_the_same_in_archives(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "files", images=64)
    paths = sorted(folder.glob("*/*/*"))
    assert Image.open(paths[0]).size == (500, 375)
    sizes = [path.stat().st_size for path in paths]
    assert 90_000 < sum(sizes) / len(sizes) < 130_000
    shards = pack_shards(folder, tmp_path / "archives")
    found = [family.describe(place) for family, place in ((image_folder, folder), (image_shards, shards))]
    assert [(each.num_train, each.num_test, each.usable) for each in found] == [(64, 8, True)] * 2
    assert found[1].state.startswith(f"{NUM_CLASSES} classes")
