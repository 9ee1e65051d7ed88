import numpy as np
import pytest
import torch

from harness.data.memory import ImageSet, MemoryData, Splits
from harness.spec import AugmentationSpec, DataSpec, TrainingSpec

CPU = torch.device("cpu")


def _images(count: int, *, seed: int) -> ImageSet:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
    return ImageSet.take(pixels, (np.arange(count) % 3).astype(np.uint8), np.arange(count))


SPLITS = Splits(_images(70, seed=0), _images(130, seed=1), _images(9, seed=2), mean=0.5, std=0.25)


def _data(*, replicate: int = 0, **augmentation: object) -> MemoryData:
    spec = DataSpec(name="pictures", num_classes=3, channels=1, image_size=8, val_images=130)
    training = TrainingSpec(
        lr=1e-3, batch_size=16, epochs=1, augmentation=AugmentationSpec.model_validate(augmentation)
    )
    return MemoryData(spec, training, SPLITS, digest="0", replicate=replicate, device=CPU)


def _first_pixels(data: MemoryData, epoch: int) -> torch.Tensor:
    return torch.cat([images[:, 0, 4, 4] for images, _ in data.train_batches(epoch)])


EVERYTHING = {"hflip": 0.5, "shift": 2, "reprob": 0.25, "mixup": 0.8, "cutmix": 1.0}


def test_an_epoch_has_whole_batches_only() -> None:
    data = _data()
    batches = list(data.train_batches(1))
    assert len(batches) == data.steps_per_epoch == 4
    assert all(images.shape == (16, 1, 8, 8) and labels.shape == (16,) for images, labels in batches)


@pytest.mark.parametrize("first", [1, 3, 4])
def test_an_epoch_that_begins_later_has_the_same_batches(first: int) -> None:
    whole = list(_data(**EVERYTHING).train_batches(2))[first:]
    rest = list(_data(**EVERYTHING).train_batches(2, first))
    assert len(rest) == len(whole) == 4 - first
    for (images, targets), (expected, weights) in zip(rest, whole, strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(targets, weights)


def test_images_keep_their_labels() -> None:
    known = {image.numpy().tobytes(): int(label) for image, label in zip(*_all(SPLITS.train), strict=True)}
    for images, labels in _data().train_batches(1):
        pixels = (images * 255 * 0.25 + 255 * 0.5).round().to(torch.uint8)
        assert [known[image.numpy().tobytes()] for image in pixels] == labels.tolist()


def _all(images: ImageSet) -> tuple[torch.Tensor, torch.Tensor]:
    return images.images, images.labels


@pytest.mark.parametrize("augmentation", [{}, EVERYTHING], ids=["plain", "augmented"])
def test_batches_follow_replicate_and_epoch_alone(augmentation: dict[str, object]) -> None:
    expected = _first_pixels(_data(**augmentation), 3)
    data = _data(**augmentation)
    list(data.train_batches(1))
    torch.manual_seed(99)
    assert torch.equal(_first_pixels(data, 3), expected)
    assert not torch.equal(_first_pixels(data, 4), expected)
    assert not torch.equal(_first_pixels(_data(replicate=1, **augmentation), 3), expected)


def test_a_model_that_draws_random_numbers_changes_no_batch_and_none_of_its_own() -> None:
    quiet = [images for images, _ in _data(**EVERYTHING).train_batches(1)]
    torch.manual_seed(7)
    drawn = torch.rand(4)
    torch.manual_seed(7)
    noisy, between = [], []
    for images, _ in _data(**EVERYTHING).train_batches(1):
        noisy.append(images)
        between.append(torch.rand(()))
    assert all(torch.equal(first, second) for first, second in zip(quiet, noisy, strict=True))
    assert torch.equal(torch.stack(between), drawn)


def test_mixed_batches_have_weights_as_targets() -> None:
    assert all(targets.shape == (16, 3) for _, targets in _data(**EVERYTHING).train_batches(1))


def test_evaluation_sees_every_image_once_in_order_and_unchanged() -> None:
    data = _data(**EVERYTHING)
    for batches, images in ((data.val_batches(), SPLITS.val), (data.test_batches(), SPLITS.test)):
        pixels, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        torch.testing.assert_close(pixels, (images.images.float() / 255 - 0.5) / 0.25)
        assert torch.equal(labels, images.labels)
