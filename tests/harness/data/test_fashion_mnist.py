import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data import fashion_mnist
from harness.data.memory import MemoryData
from harness.errors import DataError
from harness.spec import DataSpec, TrainingSpec

CPU = torch.device("cpu")
FILES = Path(str(fashion_mnist._folder(None)))
TRAINING = TrainingSpec(lr=1e-3, batch_size=10, epochs=1)


def _spec(**values: object) -> DataSpec:
    stated = {"name": "fashion_mnist", "num_classes": 10, "channels": 1, "image_size": 28, "val_images": 100}
    return DataSpec.model_validate({**stated, **values})


def _load(spec: DataSpec, replicate: int = 0) -> MemoryData:
    data = fashion_mnist.load_data(spec, TRAINING, replicate=replicate, data_dir=None, device=CPU)
    assert isinstance(data, MemoryData)
    return data


@pytest.fixture
def copied_files(tmp_path: Path) -> Path:
    for name in fashion_mnist.SHA256:
        (tmp_path / name).symlink_to(FILES / name)
    return tmp_path


def test_the_constants_are_those_of_the_training_set() -> None:
    images, labels = fashion_mnist._read_images(FILES, "train"), fashion_mnist._read_labels(FILES, "train")
    assert images.shape == (fashion_mnist.NUM_TRAIN, 1, 28, 28)
    assert np.bincount(labels).tolist() == [6000] * 10
    assert images.mean() / 255 == pytest.approx(fashion_mnist.MEAN, abs=5e-5)
    assert images.std() / 255 == pytest.approx(fashion_mnist.STD, abs=5e-5)


def test_samples_are_stratified_and_the_same_for_every_replicate() -> None:
    first, second = (_load(_spec(train_images=200, test_images=50), replicate).splits for replicate in (0, 1))
    assert torch.bincount(first.train.labels).tolist() == [20] * 10
    assert torch.bincount(first.val.labels).tolist() == [10] * 10
    assert torch.bincount(first.test.labels).tolist() == [5] * 10
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.val.images, second.val.images)


def test_all_that_validation_leaves_is_trained_on_and_all_of_the_test_set_measured() -> None:
    data = _load(_spec(val_images=5000))
    assert (data.num_train, len(data.splits.val.labels), len(data.splits.test.labels)) == (55_000, 5000, 10_000)


def test_without_validation_images_the_test_set_takes_their_place() -> None:
    splits = _load(_spec(train_images=10, val_images=0, test_images=30)).splits
    assert splits.val is splits.test


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": 32}, "image_size: fashion_mnist has 28, the recipe says 32"),
        ({"num_classes": 100}, "num_classes"),
        ({"channels": 3}, "channels"),
        ({"train_images": 60_000}, "train_images 60000 and val_images 100 are more than the 60000"),
    ],
    ids=str,
)
def test_what_the_images_cannot_give_is_one_clear_message(values: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fashion_mnist.check_data(_spec(**values), TRAINING, data_dir=None)


def test_another_folder_with_the_same_files_is_the_same_data(copied_files: Path) -> None:
    fashion_mnist.check_data(_spec(), TRAINING, data_dir=copied_files)
    assert fashion_mnist.digest_files(copied_files) == fashion_mnist.digest_files(None)


def test_a_missing_file_is_named(copied_files: Path) -> None:
    (copied_files / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz missing"):
        fashion_mnist.check_data(_spec(), TRAINING, data_dir=copied_files)
    assert not fashion_mnist.describe(copied_files).usable


def test_a_damaged_file_is_named(copied_files: Path) -> None:
    path = copied_files / "t10k-labels-idx1-ubyte.gz"
    path.unlink()
    shutil.copy(FILES / path.name, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz is damaged"):
        fashion_mnist.load_data(_spec(), TRAINING, replicate=0, data_dir=copied_files, device=CPU)
    assert "damaged" in fashion_mnist.describe(copied_files).state


def test_the_shipped_files_are_described() -> None:
    description = fashion_mnist.describe(None)
    assert description.usable
    assert (description.num_train, description.num_test) == (60_000, 10_000)
    assert description.num_bytes == sum((FILES / name).stat().st_size for name in fashion_mnist.SHA256)
    assert (FILES / "LICENSE").is_file()
