"""Archives give what a folder with the same images gives, and what is wrong with one is told with its name."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from harness.data import DATASETS, image_shards, index
from harness.data.streaming import StreamedData
from harness.errors import DataError
from harness.spec import AugmentationSpec, DataSpec, TrainingSpec
from tests.harness.data.shards import LAYOUTS, pack_shards, write_shard

CPU = torch.device("cpu")
PAPER = AugmentationSpec(
    hflip=0.5,
    reprob=0.25,
    scale=(0.08, 1.0),
    auto_augment="rand-m9-mstd0.5-inc1",
    color_jitter=0.4,
    mixup=0.8,
    cutmix=1.0,
)
TRAINING = TrainingSpec(lr=1e-3, batch_size=4, epochs=1, smoothing=0.1, augmentation=PAPER)


@pytest.fixture
def folder(write_images: Callable[[str], Path]) -> Path:
    return write_images("jpg")


@pytest.fixture(params=LAYOUTS)
def shards(folder: Path, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "by text":  # names repeat in the folders of classes, keys must not in an archive
        for path in folder.glob("*/*/*"):
            path.rename(path.with_name(f"{path.parent.name}_{path.name}"))
    return pack_shards(folder, tmp_path / "shards", request.param)


def _spec(name: str = "image_shards", **values: object) -> DataSpec:
    stated = {"name": name, "num_classes": 3, "channels": 3, "image_size": 32, "val_images": 0, "crop_pct": 0.9}
    return DataSpec.model_validate({**stated, **values})


def _load(folder: Path, name: str = "image_shards", **values: object) -> StreamedData:
    spec = _spec(name, **values)
    DATASETS[name].check_data(spec, TRAINING, data_dir=folder)
    data = DATASETS[name].load_data(spec, TRAINING, replicate=1, data_dir=folder, device=CPU)
    assert isinstance(data, StreamedData)
    return data


def _jpeg() -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").save(file, "JPEG")
    return file.getvalue()


def _two(folder: Path, members: dict[str, bytes]) -> Path:
    """Two splits of the same members."""
    for split in ("train", "val"):
        write_shard(folder / split / "0.tar", members)
    return folder


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sample", [{}, {"val_images": 6, "train_images": 14, "test_images": 5}], ids=["all", "sample"])
def test_batches_are_those_of_a_folder_bit_for_bit(
    folder: Path, shards: Path, sample: dict[str, int], workers: int
) -> None:
    expected, found = _load(folder, "image_folder", **sample), _load(shards, **sample, loading_workers=workers)
    assert expected.steps_per_epoch == found.steps_per_epoch
    for kind, arguments in (("train", (1,)), ("train", (2, 3)), ("val", ()), ("test", ())):
        pairs = zip(
            *(getattr(data, f"{kind}_batches")(*arguments) for data in (expected, found)),
            strict=True,
        )
        for (images, targets), (same_images, same_targets) in pairs:
            assert torch.equal(images, same_images)
            assert torch.equal(targets, same_targets)


def test_the_digest_follows_images_and_not_their_archives(folder: Path, tmp_path: Path) -> None:
    packed = pack_shards(folder, tmp_path / "shards", "by folder")
    digest = image_shards.digest_files(packed)
    members = {f"{path.parent.name}/{path.name}": path.read_bytes() for path in folder.glob("train/*/*")}
    for path in (packed / "train").iterdir():
        path.unlink()
    write_shard(packed / "train" / "all.tar", members)
    assert image_shards.digest_files(packed) == digest
    write_shard(packed / "train" / "all.tar", {**members, "ant/new.jpg": _jpeg()})
    assert image_shards.digest_files(packed) != digest


def test_archives_are_described(shards: Path) -> None:
    found = image_shards.describe(shards)
    assert (found.usable, found.num_train, found.num_test) == (True, 24, 9)
    assert found.state == "3 classes in 7 archives"
    assert found.digest == image_shards.digest_files(shards)
    assert not image_shards.describe(None).usable


@pytest.mark.usefixtures("settled")
def test_archives_are_read_once(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _load(shards)
    index._known.clear()
    monkeypatch.setattr(image_shards, "read_archive", None)
    assert _load(shards).num_train == 24


@pytest.mark.usefixtures("settled")
def test_an_archive_that_changes_during_a_run_ends_it_and_is_read_again(shards: Path) -> None:
    data, path = _load(shards), shards / "train" / "0005.tar"
    before = image_shards.digest_files(shards)
    path.write_bytes((shards / "train" / "0000.tar").read_bytes() + bytes(10240))
    with pytest.raises(DataError, match=r"0005\.tar has changed since it was indexed; run the command again"):
        list(data.train_batches(1))
    assert image_shards.digest_files(shards) != before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_classes": 1000}, "image_shards has 3, the recipe says 1000"),
        ({"channels": 1}, "channels"),
        ({"val_images": 24}, "val_images 24 are more than the 24"),
    ],
    ids=str,
)
def test_what_archives_cannot_give_is_one_clear_message(shards: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        image_shards.check_data(_spec(**values), TRAINING, data_dir=shards)


def test_train_and_val_have_the_same_classes(tmp_path: Path) -> None:
    _two(tmp_path, {"ant/1.jpg": b"", "bee/1.jpg": b""})
    write_shard(tmp_path / "val" / "0.tar", {"ant/1.jpg": b"", "cat/1.jpg": b""})
    with pytest.raises(DataError, match="only in one of them: bee"):
        image_shards.check_data(_spec(num_classes=2), TRAINING, data_dir=tmp_path)
    write_shard(tmp_path / "train" / "0.tar", {"1.jpg": b"", "1.cls": b"0"})
    write_shard(tmp_path / "val" / "0.tar", {"1.jpg": b"", "1.cls": b"1"})
    with pytest.raises(DataError, match="has class 1, train/ ends at 0"):
        image_shards.check_data(_spec(num_classes=1), TRAINING, data_dir=tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_is_named(shards: Path, split: str) -> None:
    (shards / split).rename(shards / "elsewhere")
    with pytest.raises(DataError, match=rf"{split} is missing: --data DIR needs train/\*\.tar and val/\*\.tar"):
        image_shards.digest_files(shards)
    with pytest.raises(DataError, match="--data DIR"):
        image_shards.digest_files(None)


def test_archives_without_images_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train has no images in archives \(\*\.tar, not compressed\)"):
        image_shards.digest_files(_two(tmp_path, {"1.txt": b""}))


def test_a_damaged_archive_makes_no_dataset(shards: Path) -> None:
    path = shards / "val" / "0000.tar"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"val/0000\.tar is no tar archive, damaged or cut off"):
        image_shards.check_data(_spec(), TRAINING, data_dir=shards)
    assert not image_shards.describe(shards).usable


def test_a_damaged_image_is_named_with_its_archive(tmp_path: Path) -> None:
    images = {f"ant/{number}.jpg": _jpeg() for number in range(4)}
    _two(tmp_path, {**images, "ant/3.jpg": b"no image"})
    with pytest.raises(DataError, match=r"train/0\.tar: ant/3\.jpg cannot be decoded"):
        list(_load(tmp_path, num_classes=1).train_batches(1))
