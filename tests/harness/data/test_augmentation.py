import random

import numpy as np
import pytest
import torch

from harness.data.augmentation import BatchAugmentation, build_mixup, normalize, seeded, shift_images
from harness.spec import AugmentationSpec, DataSpec, TrainingSpec

IMAGES = torch.randint(1, 256, (40, 2, 6, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_seeded_block_repeats_itself() -> None:
    with seeded(5):
        first = _draw()
    with seeded(5):
        assert _draw() == first
    with seeded(6):
        assert _draw() != first


def test_a_seeded_block_leaves_the_generators_alone() -> None:
    with seeded(1):
        expected = _draw()
    with seeded(1):
        with seeded(2):
            _draw()
        assert _draw() == expected


def test_a_seeded_block_that_raises_leaves_the_generators_alone() -> None:
    with seeded(1):
        expected = _draw()
    with seeded(1):
        with pytest.raises(KeyError), seeded(2):
            _draw()
            raise KeyError
        assert _draw() == expected


def test_without_augmentation_images_are_normalized() -> None:
    out = BatchAugmentation(AugmentationSpec(), mean=0.25, std=0.5)(IMAGES)
    torch.testing.assert_close(out, (IMAGES.float() / 255 - 0.25) / 0.5)


def test_flips_are_drawn_image_by_image() -> None:
    augment = BatchAugmentation(AugmentationSpec(hflip=0.5), mean=0.0, std=1.0)
    with seeded(0):
        out = augment(IMAGES)
    plain = normalize(IMAGES, mean=0.0, std=1.0)
    kept = (out == plain).flatten(1).all(1)
    flipped = (out == plain.flip(-1)).flatten(1).all(1)
    assert (kept ^ flipped).all()
    assert 5 < flipped.sum() < 35


def test_a_shift_moves_an_image_as_a_whole_and_fills_with_black() -> None:
    with seeded(0):
        out = shift_images(IMAGES, 2)
    padded = torch.nn.functional.pad(IMAGES, (2, 2, 2, 2))
    found = set()
    for image, source in zip(out, padded, strict=True):
        offsets = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(source[:, top : top + 6, left : left + 9], image)
        ]
        assert len(offsets) == 1
        found.update(offsets)
    assert len(found) > 15


def test_erasing_puts_noise_into_a_rectangle() -> None:
    images = torch.full((200, 1, 12, 14), 128, dtype=torch.uint8)
    with seeded(0):
        out = BatchAugmentation(AugmentationSpec(reprob=0.25), mean=0.5, std=0.5)(images)
    changed = (out != out[:, :, :1, :1]).flatten(1).any(1)
    assert 30 < changed.sum() < 70
    assert out[changed].std() > 0.1


def _mixup(**values: float) -> object:
    data = DataSpec(name="pictures", num_classes=4, channels=2, image_size=9, val_images=0)
    augmentation = AugmentationSpec(mixup=values.pop("mixup", 0.0), cutmix=values.pop("cutmix", 0.0))
    return build_mixup(data, TrainingSpec(lr=1e-3, batch_size=8, epochs=1, augmentation=augmentation, **values))


def test_mixing_is_off_where_both_are_zero() -> None:
    assert _mixup() is None


@pytest.mark.parametrize("values", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}], ids=str)
def test_mixed_targets_are_smoothed_weights_of_classes(values: dict[str, float]) -> None:
    mixup = _mixup(smoothing=0.1, **values)
    assert callable(mixup)
    with seeded(3):
        _, targets = mixup(IMAGES.float(), torch.arange(40) % 4)
    torch.testing.assert_close(targets.sum(1), torch.ones(40))
    torch.testing.assert_close(targets.min(), torch.tensor(0.1 / 4))
