"""Checks of a recipe's data fields that every dataset family shares. Imports no torch."""

from collections.abc import Iterable
from pathlib import Path

from harness.errors import DataError
from harness.spec import AugmentationSpec, DataSpec, TrainingSpec


def check_shape(spec: DataSpec, **expected: int) -> None:
    """The recipe's `num_classes`, `channels`, `image_size` must be those of the files."""
    for field, value in expected.items():
        if getattr(spec, field) != value:
            raise DataError(f"data.{field}: {spec.name} has {value}, the recipe says {getattr(spec, field)}")


def check_classes(train: Iterable[str], test: Iterable[str], data_dir: Path | None) -> None:
    """The two folders must have the same classes."""
    odd = sorted({*train} ^ {*test})
    if odd:
        raise DataError(f"train/ and val/ of {data_dir} must have the same classes; only in one of them: {odd[0]}")


def check_counts(spec: DataSpec, training: TrainingSpec, *, num_train: int, num_test: int) -> None:
    """There must be enough images for the samples and for one batch; `num_train` and `num_test` are what is there."""
    wanted = (spec.train_images or 0) + spec.val_images
    if wanted > num_train or spec.val_images == num_train:
        samples = f"train_images {spec.train_images or 'of at least 1'} and val_images {spec.val_images}"
        raise DataError(f"data: {samples} are more than the {num_train} training images of {spec.name}")
    if (spec.test_images or 0) > num_test:
        raise DataError(f"data.test_images: {spec.test_images} of {num_test} test images of {spec.name}")
    trained = spec.train_images or num_train - spec.val_images
    if training.batch_size > trained:
        raise DataError(f"training.batch_size: {training.batch_size} is more than the {trained} images trained on")


def check_augmentation(
    spec: DataSpec, training: TrainingSpec, *, unsupported: tuple[str, ...], has_label_maps: bool = False
) -> None:
    """Fields that the family cannot do must be left at their default, and only some families have label maps."""
    default = AugmentationSpec()
    for field in unsupported:
        if getattr(training.augmentation, field) != getattr(default, field):
            raise DataError(f"training.augmentation.{field}: the images of {spec.name} cannot be changed in this way")
    if training.token_labels is not None and not has_label_maps:
        raise DataError(f"training.token_labels: the images of {spec.name} have no label maps")
    if training.augmentation.mixes_images and training.batch_size % 2:
        raise DataError(f"training.batch_size: must be even with mixup or cutmix, got {training.batch_size}")
