"""Unreadable training images are replaced up to the share that a recipe states, the same by whoever loads them."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.data import DATASETS
from harness.data.streaming import StreamedData
from harness.errors import DataError
from harness.spec import AugmentationSpec, DataSpec, TrainingSpec
from tests.harness.data.shards import pack_shards

CPU = torch.device("cpu")
TRAINING = TrainingSpec(
    lr=1e-3, batch_size=4, epochs=1, augmentation=AugmentationSpec(hflip=0.5, scale=(0.3, 1.0), reprob=0.25)
)
TWO_OF_24 = 0.09


@pytest.fixture
def folder(write_images: Callable[[str], Path]) -> Path:
    """Two of 24 training images are damaged."""
    folder = write_images("png")
    for name in ("ant/3.png", "cat/5.png"):
        (folder / "train" / name).write_bytes(b"no image")
    return folder


def _load(folder: Path, share: float, *, name: str = "image_folder", replicate: int = 0, **values: int) -> StreamedData:
    stated = {"name": name, "num_classes": 3, "channels": 3, "image_size": 32, "val_images": 0, **values}
    spec = DataSpec.model_validate({**stated, "unreadable_share": share})
    data = DATASETS[name].load_data(spec, TRAINING, replicate=replicate, data_dir=folder, device=CPU)
    assert isinstance(data, StreamedData)
    return data


def _read(data: StreamedData, epoch: int, first: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    batches = list(data.train_batches(epoch, first))
    assert all(isinstance(targets, torch.Tensor) for _, targets in batches)
    return batches  # type: ignore[return-value]


def _are_equal(some: list[tuple[torch.Tensor, torch.Tensor]], others: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    pairs = zip(some, others, strict=True)
    return all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in pairs)


def test_without_a_share_any_unreadable_image_fails(folder: Path) -> None:
    data = _load(folder, 0.0)
    with pytest.raises(DataError, match=r"(ant/3|cat/5)\.png cannot be decoded"):
        list(data.train_batches(1))
    assert data.metrics == {}


def test_a_share_changes_no_number_where_all_images_are_readable(write_images: Callable[[str], Path]) -> None:
    folder = write_images("png")
    data = _load(folder, 0.5)
    assert _are_equal(_read(data, 1), _read(_load(folder, 0.0), 1))
    assert data.metrics == {"train/unreadable": 0.0}


@pytest.mark.parametrize("workers", [0, 2])
def test_up_to_the_share_others_are_trained_on(folder: Path, workers: int, caplog: pytest.LogCaptureFixture) -> None:
    data = _load(folder, TWO_OF_24, loading_workers=workers)
    with caplog.at_level(logging.WARNING, "harness"):
        batches = [_read(data, epoch) for epoch in (1, 2)]
    assert [len(epoch) for epoch in batches] == [6, 6]
    assert data.metrics == {"train/unreadable": 2.0}
    (told,) = (record.getMessage() for record in caplog.records)
    assert told.startswith("2 of 24 training images cannot be decoded: ")
    assert "ant/3.png" in told
    assert "cat/5.png" in told


def test_replacements_follow_replicate_epoch_and_image_alone(folder: Path, tmp_path: Path) -> None:
    expected = _read(_load(folder, TWO_OF_24), 2)
    data = _load(folder, TWO_OF_24, loading_workers=2)
    _read(data, 1)
    torch.manual_seed(99)
    assert _are_equal(_read(data, 2), expected)
    assert _are_equal(_read(data, 2, 3), expected[3:])
    packed = pack_shards(folder, tmp_path / "shards", "by folder")
    assert _are_equal(_read(_load(packed, TWO_OF_24, name="image_shards"), 2), expected)


def test_each_epoch_and_replicate_has_replacements_of_its_own(folder: Path) -> None:
    shown = set[tuple[int, ...]]()
    for replicate in range(3):
        data = _load(folder, TWO_OF_24, replicate=replicate)
        for epoch in range(4):
            data.train_images.epoch = epoch
            shown.add(tuple(data.train_images._open_readable(position)[0] for position in (3, 21)))
    assert len(shown) > 6
    assert not {position for pair in shown for position in pair} & {3, 21}


def test_a_replacement_has_its_own_label(folder: Path) -> None:
    data = _load(folder, TWO_OF_24)
    data.train_images.epoch = 1
    shown, _, label = data.train_images._open_readable(3)
    assert label == shown // 8


@pytest.mark.parametrize("workers", [0, 2])
def test_beyond_the_share_the_run_fails_with_count_and_names(folder: Path, workers: int) -> None:
    with pytest.raises(
        DataError,
        match=r"2 of 24 training images cannot be decoded: .*png, .*png; data\.unreadable_share allows 0\.05 of them",
    ):
        for epoch in (1, 2):
            _read(_load(folder, 0.05, loading_workers=workers), epoch)


def test_a_message_names_the_first_images_only(folder: Path) -> None:
    for number in range(8):
        (folder / "train" / "bee" / f"{number}.png").write_bytes(b"")
    data = _load(folder, 0.5)
    _read(data, 1)
    assert data._describe_unreadable().startswith("10 of 24 training images")
    assert data._describe_unreadable().endswith("bee/1.png, ...")


def test_where_no_image_is_readable_one_is_named(folder: Path) -> None:
    for path in folder.glob("train/*/*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="cannot be decoded"):
        _read(_load(folder, 0.9), 1)


@pytest.mark.parametrize("split", ["val", "test"])
def test_images_that_are_scored_on_are_never_replaced(folder: Path, split: str) -> None:
    data = _load(folder, 0.5, val_images=6)
    scored = (data.val_loader if split == "val" else data.test_loader).dataset
    Path(scored.images.find_name(scored.indices[1])).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"changed from|cannot be decoded"):
        list(getattr(data, f"{split}_batches")())
    scored.images.sizes[scored.indices[1]] = len(b"no image")
    with pytest.raises(DataError, match="cannot be decoded"):
        list(getattr(data, f"{split}_batches")())
