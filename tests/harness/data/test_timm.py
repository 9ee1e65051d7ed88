from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import IterableImageDataset

from harness.data import image_folder, timm
from harness.data.streaming import StreamedData
from harness.errors import DataError
from harness.spec import AugmentationSpec, DataSpec, TrainingSpec

CPU = torch.device("cpu")
TRAINING = TrainingSpec(lr=1e-3, batch_size=4, epochs=1, augmentation=AugmentationSpec(hflip=0.5, reprob=0.25))


@pytest.fixture
def folder(write_images: Callable[[str], Path]) -> Path:
    return write_images("png")


def _spec(source: str | None = "torch/image_folder", **values: object) -> DataSpec:
    stated = {"name": "timm", "source": source, "num_classes": 3, "channels": 3, "image_size": 32, "val_images": 0}
    return DataSpec.model_validate({**stated, **values})


def _load(spec: DataSpec, folder: Path | None) -> StreamedData:
    timm.check_data(spec, TRAINING, data_dir=folder)
    data = timm.load_data(spec, TRAINING, replicate=0, data_dir=folder, device=CPU)
    assert isinstance(data, StreamedData)
    return data


@pytest.mark.parametrize("source", ["torch/image_folder", "folder"])
def test_a_dataset_of_timm_gives_the_batches_of_the_same_files(folder: Path, source: str) -> None:
    files = _spec(None).model_copy(update={"name": "image_folder"})
    same = image_folder.load_data(files, TRAINING, replicate=0, data_dir=folder, device=CPU)
    data = _load(_spec(source), folder)
    assert data.steps_per_epoch == 6
    for (images, labels), (expected, targets) in zip(data.train_batches(1), same.train_batches(1), strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(labels, targets)
    tested = torch.cat([labels for _, labels in data.test_batches()])
    assert tested.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_validation_images_are_held_out(folder: Path) -> None:
    data = _load(_spec(val_images=6), folder)
    assert data.num_train == 18
    assert not set(data.val_loader.dataset.indices) & set(data.train_images.indices)


class _Reader:
    """What can be read from its beginning only; gray images, one class each."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self):
        return iter([(Image.new("L", (32, 32), 10 * index), index % 3) for index in range(self.count)])


def test_a_dataset_without_random_access_is_read_into_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes = {"train": 12, "test": 6}
    monkeypatch.setattr(
        "timm.data.create_dataset", lambda _source, root, split, **_: IterableImageDataset(root, _Reader(sizes[split]))
    )
    data = _load(_spec("tfds/gray", test_split="test"), tmp_path)
    images, labels = next(iter(data.test_batches()))
    assert labels.tolist() == [0, 1, 2, 0]
    assert images.shape == (4, 3, 32, 32)
    assert len(list(data.train_batches(1))) == 3


def test_the_digest_follows_the_labels(folder: Path) -> None:
    found = timm.digest_files(folder, _spec())
    assert found == timm.digest_files(folder, _spec("folder")) == _load(_spec(), folder).digest
    swapped = _spec(train_split="val", test_split="train")
    assert timm.digest_files(folder, swapped) != found


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": None}, r"data\.source is missing"),
        ({"source": "torch/imaginary"}, "timm cannot open split 'train' of 'torch/imaginary'"),
        ({"source": "torch/cifar10"}, "timm cannot open split 'train' of 'torch/cifar10'"),
        ({"num_classes": 2}, r"num_classes: train of torch/image_folder has labels 0 to 2"),
        ({"num_classes": 1000}, "has labels 0 to 2, the recipe says 1000 classes"),
        ({"channels": 1}, "channels"),
        ({"val_images": 24}, "val_images 24 are more than the 24"),
    ],
    ids=str,
)
def test_what_the_dataset_cannot_give_is_one_clear_message(
    folder: Path, values: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        timm.check_data(_spec().model_copy(update=values), TRAINING, data_dir=folder)


def test_a_recipe_says_what_is_described(folder: Path) -> None:
    found = timm.describe(folder, _spec())
    assert (found.usable, found.num_train, found.num_test) == (True, 24, 9)
    assert found.state == "torch/image_folder, 3 classes"
    assert "data.source" in timm.describe(folder).state
    assert not timm.describe(None, _spec("torch/cifar10")).usable


@pytest.mark.parametrize("source", ["torch/image_folder", "folder"])
def test_a_damaged_image_is_named(folder: Path, source: str) -> None:
    (folder / "train" / "bee" / "3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bee/3\.png cannot be decoded: cannot identify image file"):
        list(_load(_spec(source), folder).train_batches(1))


@pytest.mark.parametrize("source", ["torch/image_folder", "folder", "wds/gray"])
def test_every_reader_scales_sixteen_bits_of_gray(folder: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in folder.glob("*/*/*.png"):
        Image.fromarray(np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)).save(path)
    if source == "wds/gray":
        files = sorted(folder.glob("train/*/*.png"))
        items = [(Image.open(path), index % 3) for index, path in enumerate(files)]
        monkeypatch.setattr(
            "timm.data.create_dataset", lambda *_, input_img_mode, **__: [items, None][bool(input_img_mode)]
        )
    for images, _ in _load(_spec(source), folder).test_batches():
        low, high = images.amin((-1, -2, -3)), images.amax((-1, -2, -3))
        assert (high - low > 3).all()


def test_a_folder_that_leads_back_to_itself_is_named(folder: Path) -> None:
    (folder / "train" / "bee" / "more").symlink_to("..")
    with pytest.raises(DataError, match="links to a folder that contains it"):
        timm.check_data(_spec("folder"), TRAINING, data_dir=folder)
