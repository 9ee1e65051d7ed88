import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from harness.data import image_folder, index, loading
from harness.data.loading import watching_loaders
from harness.data.streaming import StreamedData
from harness.errors import DataError, LoaderKilled
from harness.spec import AugmentationSpec, DataSpec, TrainingSpec

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


@pytest.fixture
def folder(write_images: Callable[[str], Path]) -> Path:
    return write_images("jpg")


def _spec(**values: object) -> DataSpec:
    stated = {"name": "image_folder", "num_classes": 3, "channels": 3, "image_size": 32, "val_images": 0}
    return DataSpec.model_validate({**stated, "crop_pct": 0.9, **values})


def _training(augmentation: AugmentationSpec = PAPER) -> TrainingSpec:
    return TrainingSpec(lr=1e-3, batch_size=4, epochs=1, smoothing=0.1, augmentation=augmentation)


def _load(folder: Path, spec: DataSpec, *, replicate: int = 0, training: TrainingSpec | None = None) -> StreamedData:
    training = training or _training()
    image_folder.check_data(spec, training, data_dir=folder)
    data = image_folder.load_data(spec, training, replicate=replicate, data_dir=folder, device=CPU)
    assert isinstance(data, StreamedData)
    return data


def _images(data: StreamedData, epoch: int) -> torch.Tensor:
    return torch.cat([images for images, _ in data.train_batches(epoch)])


def test_an_epoch_has_whole_augmented_mixed_batches(folder: Path) -> None:
    data = _load(folder, _spec(train_images=22))
    batches = list(data.train_batches(1))
    assert len(batches) == data.steps_per_epoch == 5
    for images, targets in batches:
        assert images.shape == (4, 3, 32, 32)
        torch.testing.assert_close(targets.sum(1), torch.ones(4))


def test_batches_follow_replicate_and_epoch_alone(folder: Path) -> None:
    expected = _images(_load(folder, _spec()), 2)
    data = _load(folder, _spec())
    _images(data, 1)
    torch.manual_seed(99)
    assert torch.equal(_images(data, 2), expected)
    assert not torch.equal(_images(data, 3), expected)
    assert not torch.equal(_images(_load(folder, _spec(), replicate=1), 2), expected)


def test_loading_workers_change_no_pixel(folder: Path) -> None:
    assert torch.equal(_images(_load(folder, _spec(loading_workers=2)), 1), _images(_load(folder, _spec()), 1))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("erasing", ["before_mixing", "after_mixing"])
@pytest.mark.parametrize("first", [1, 2, 4, 5])
def test_an_epoch_that_begins_later_has_the_same_batches(
    folder: Path, monkeypatch: pytest.MonkeyPatch, first: int, erasing: str, workers: int
) -> None:
    """timm erases a batch while it hands out the one before it."""
    training = _training(PAPER.model_copy(update={"erasing": erasing, "reprob": 0.5}))
    whole = list(_load(folder, _spec(train_images=22), training=training).train_batches(2))[first:]
    data = _load(folder, _spec(train_images=22, loading_workers=workers), training=training)
    decoded, images_type = list[int](), type(data.train_images.images)
    decode = images_type.__getitem__
    monkeypatch.setattr(
        images_type, "__getitem__", lambda images, index: decoded.append(index) or decode(images, index)
    )
    rest = list(data.train_batches(2, first))
    assert len(rest) == len(whole) == 5 - first
    for (images, targets), (expected, weights) in zip(rest, whole, strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(targets, weights)
    if not workers:
        assert len(decoded) == 4 * min(5, 5 - first + 2)


def _load_and_wait(sender: Connection, folder: Path) -> None:
    data = _load(folder, _spec(loading_workers=2))
    batches = data.train_batches(1)
    next(batches)
    sender.send([child.pid for child in psutil.Process().children()])
    signal.pause()


def test_a_loading_process_that_is_killed_ends_the_run_as_killed(folder: Path) -> None:
    with pytest.raises(LoaderKilled, match=r"killed by signal 9 \(SIGKILL\)"), watching_loaders():
        data = _load(folder, _spec(loading_workers=2))
        for epoch in range(1, 1000):
            for _ in data.train_batches(epoch):
                os.kill(loading._started[-1].pid or 0, signal.SIGKILL)


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError, RuntimeError])
def test_whatever_is_heard_first_of_a_killed_loading_process_it_is_reported(error: type[Exception]) -> None:
    with pytest.raises(LoaderKilled, match=r"killed by signal 9 \(SIGKILL\)"), watching_loaders():
        ended, killed = (loading.LoadingProcess(target=signal.pause) for _ in range(2))
        ended.start()
        ended.terminate()  # as torch ends those of an earlier epoch
        ended.join()
        killed.start()
        killed.kill()
        if error is RuntimeError:
            killed.join()
        raise error


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError, OSError])
def test_an_error_without_a_killed_loading_process_stays_what_it_is(error: type[Exception]) -> None:
    with pytest.raises(error), watching_loaders():
        raise error


@pytest.mark.slow
def test_loading_processes_import_nothing_again_and_end_with_the_run(folder: Path) -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    run = multiprocessing.get_context("fork").Process(target=_load_and_wait, args=(sender, folder))
    run.start()
    loading = [psutil.Process(pid) for pid in receiver.recv()]
    assert len(loading) == 2
    own = psutil.Process().cmdline()
    assert all(process.cmdline() == own for process in loading)  # forked, not started anew
    run.kill()
    run.join()
    deadline = time.monotonic() + 10
    while any(map(_is_running, loading)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(_is_running, loading))


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_val_folder_is_test_and_stands_in_for_validation(folder: Path) -> None:
    data = _load(folder, _spec())
    labels = torch.cat([labels for _, labels in data.test_batches()])
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    validated = torch.cat([images for images, _ in data.val_batches()])
    assert torch.equal(validated, torch.cat([images for images, _ in data.test_batches()]))


def test_validation_images_are_held_out_of_train_by_class(folder: Path) -> None:
    data = _load(folder, _spec(val_images=6))
    assert data.num_train == 18
    assert sorted(torch.cat([labels for _, labels in data.val_batches()]).tolist()) == [0, 0, 1, 1, 2, 2]
    assert not set(data.val_loader.dataset.indices) & set(data.train_images.indices)


def test_the_digest_follows_names_and_sizes(folder: Path) -> None:
    before = image_folder.digest_files(folder)
    assert image_folder.digest_files(folder) == before
    path = folder / "train" / "ant" / "0.jpg"
    path.rename(path.with_name("9.jpg"))
    renamed = image_folder.digest_files(folder)
    path.with_name("9.jpg").write_bytes(b"shorter")
    assert len({before, renamed, image_folder.digest_files(folder)}) == 3


def test_the_digest_is_that_of_earlier_versions(folder: Path) -> None:
    """Results of many hours become stale where it changes."""
    for number, path in enumerate(sorted(folder.glob("*/*/*"))):
        path.write_bytes(bytes(number))
    deep = folder / "train" / "ant-like" / "deep"
    deep.mkdir(parents=True)
    (folder / "train" / "ant" / "0.jpg").rename(deep / "0.JPEG")
    (folder / "val" / "ant").rename(folder / "val" / "ant-like")
    digest = image_folder.digest_files(folder)
    assert digest == "9dd707a43b588b4300c1eeee09ec2cd60547263731130cc2719eb0115186e5ac"


def _forbid_listing(*_: object) -> None:
    raise AssertionError("listed again")


@pytest.mark.usefixtures("settled")
def test_a_folder_is_listed_once_by_whoever_asks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, described = _spec(), image_folder.describe(folder)
    expected = _images(_load(folder, spec), 1)
    monkeypatch.setattr(image_folder, "list_files", _forbid_listing)
    assert image_folder.describe(folder, spec) == described
    index._known.clear()  # as in another process
    data = _load(folder, spec)
    assert data.digest == described.digest
    assert torch.equal(_images(data, 1), expected)
    with pytest.raises(AssertionError, match="listed again"):
        image_folder.describe(folder)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_was_rewritten_after_the_listing_ends_the_run(folder: Path, workers: int) -> None:
    data, path = _load(folder, _spec(loading_workers=workers)), folder / "train" / "ant" / "0.jpg"
    before, size = image_folder.digest_files(folder), path.stat().st_size
    path.write_bytes((folder / "train" / "ant" / "1.jpg").read_bytes() + b"0")
    assert image_folder.digest_files(folder) == before  # the folder's time is the same
    sizes = rf"from {size:,} to {path.stat().st_size:,} bytes"
    with pytest.raises(DataError, match=rf"ant/0\.jpg has changed {sizes} since it was listed; run the command again"):
        list(data.train_batches(1))
    index._known.clear()
    assert image_folder.digest_files(folder) != before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_classes": 1000}, "image_folder has 3, the recipe says 1000"),
        ({"channels": 1}, "channels"),
        ({"val_images": 24}, "val_images 24 are more than the 24"),
    ],
    ids=str,
)
def test_what_the_folder_cannot_give_is_one_clear_message(folder: Path, values: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        image_folder.check_data(_spec(**values), _training(), data_dir=folder)


def test_a_shift_is_not_for_image_files(folder: Path) -> None:
    with pytest.raises(DataError, match="shift"):
        image_folder.check_data(_spec(), _training(AugmentationSpec(shift=2)), data_dir=folder)


def test_a_folder_must_be_given() -> None:
    with pytest.raises(DataError, match="--data DIR"):
        image_folder.check_data(_spec(), _training(), data_dir=None)
    assert not image_folder.describe(None).usable


def test_train_and_val_have_the_same_classes(folder: Path) -> None:
    (folder / "val" / "cat").rename(folder / "val" / "dog")
    with pytest.raises(DataError, match="only in one of them: cat"):
        image_folder.check_data(_spec(), _training(), data_dir=folder)


def test_a_class_without_images_is_named(folder: Path) -> None:
    (folder / "train" / "bat").mkdir()
    with pytest.raises(DataError, match="bat has no images"):
        image_folder.check_data(_spec(), _training(), data_dir=folder)


def test_a_missing_split_is_named(folder: Path) -> None:
    (folder / "val").rename(folder / "validation")
    with pytest.raises(DataError, match="val is missing"):
        image_folder.check_data(_spec(), _training(), data_dir=folder)


def test_a_damaged_image_is_named(folder: Path) -> None:
    (folder / "train" / "bee" / "3.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bee/3\.jpg cannot be decoded"):
        list(_load(folder, _spec()).train_batches(1))


def test_a_folder_is_described(folder: Path) -> None:
    description = image_folder.describe(folder)
    assert (description.usable, description.num_train, description.num_test) == (True, 24, 9)
    assert description.state == "3 classes"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_told_in_one_line_by_whoever_loads_it(folder: Path, workers: int) -> None:
    (folder / "train" / "bee" / "3.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bee/3\.jpg cannot be decoded") as told:
        list(_load(folder, _spec(loading_workers=workers)).train_batches(1))
    assert len(str(told.value).splitlines()) == 1


def test_sixteen_bits_of_gray_reach_the_model(folder: Path) -> None:
    """The same picture with 8 and with 16 bits is the same tensor."""
    data = _load(folder, _spec())
    for path in folder.glob("val/*/*.jpg"):
        gray = Image.open(path).convert("L")
        gray.save(path.with_suffix(".png"))
        path.unlink()
    expected = torch.cat([images for images, _ in _load(folder, _spec()).test_batches()])
    for path in folder.glob("val/*/*.png"):
        Image.fromarray(257 * np.asarray(Image.open(path)).astype(np.uint16)).save(path)
    found = torch.cat([images for images, _ in _load(folder, _spec()).test_batches()])
    assert torch.equal(found, expected)
    assert data.digest != _load(folder, _spec()).digest


def test_a_name_that_is_not_utf8_is_a_name_like_any_other(folder: Path) -> None:
    for split in ("train", "val"):
        (folder / split / "bee").rename(folder / split / os.fsdecode(b"b\xe9"))
    damaged = folder / "train" / os.fsdecode(b"b\xe9/\xff.jpg")
    damaged.write_bytes(b"no image")
    assert image_folder.describe(folder).usable
    with pytest.raises(DataError, match=r"b\\xe9/\\xff\.jpg cannot be decoded"):
        list(_load(folder, _spec()).train_batches(1))
    before = image_folder.digest_files(folder)
    damaged.rename(damaged.with_name(os.fsdecode(b"\xfe.jpg")))
    assert image_folder.digest_files(folder) != before


@pytest.mark.parametrize(
    ("place", "target", "message"),
    [
        ("train/bee/x.jpg", "nowhere.jpg", r"bee/x\.jpg is a broken link"),
        ("train/bee/x.jpg", "x.jpg", r"bee/x\.jpg is a broken link"),
        ("train/bat", "nowhere", "train/bat is a broken link"),
        ("train/bee/more", ".", "bee/more links to a folder that contains it"),
        ("val/bee/more", "../..", "links to a folder that contains it"),
    ],
    ids=["dangling", "itself", "dangling class", "circle", "wide circle"],
)
def test_a_link_that_leads_nowhere_or_back_is_named(folder: Path, place: str, target: str, message: str) -> None:
    (folder / place).symlink_to(target)
    with pytest.raises(DataError, match=message):
        image_folder.check_data(_spec(), _training(), data_dir=folder)
    assert not image_folder.describe(folder).usable


def test_links_to_files_and_folders_elsewhere_are_followed(folder: Path) -> None:
    before = image_folder.digest_files(folder)
    (folder / "val" / "bee").rename(folder / "elsewhere")
    (folder / "val" / "bee").symlink_to("../elsewhere")
    (folder / "train" / "ant" / "3.jpg").rename(folder / "3.jpg")
    (folder / "train" / "ant" / "3.jpg").symlink_to("../../3.jpg")
    assert image_folder.digest_files(folder) == before


def test_a_name_of_an_image_that_is_no_file_is_told(folder: Path) -> None:
    os.mkfifo(folder / "train" / "ant" / "pipe.jpg")
    with pytest.raises(DataError, match=r"pipe\.jpg is not a file"):
        image_folder.check_data(_spec(), _training(), data_dir=folder)


def test_images_without_a_folder_of_their_class_are_told(folder: Path) -> None:
    for path in folder.glob("val/*/*.jpg"):
        path.rename(folder / "val" / f"{path.parent.name}{path.name}")
    for path in folder.glob("val/*/"):
        path.rmdir()
    with pytest.raises(DataError, match=r"9 images lie directly in .*val, such as ant0\.jpg: put each into the folder"):
        image_folder.check_data(_spec(), _training(), data_dir=folder)
