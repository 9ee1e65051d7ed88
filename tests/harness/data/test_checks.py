import pytest

from harness.data.checks import check_augmentation, check_counts, check_shape
from harness.errors import DataError
from harness.spec import AugmentationSpec, DataSpec, TrainingSpec

DATA = DataSpec(name="pictures", num_classes=10, channels=1, image_size=28, val_images=20)
TRAINING = TrainingSpec(lr=1e-3, batch_size=8, epochs=1)


def test_the_recipe_says_what_the_files_have() -> None:
    check_shape(DATA, num_classes=10, channels=1)
    with pytest.raises(DataError, match=r"data\.num_classes: pictures has 7, the recipe says 10"):
        check_shape(DATA, num_classes=7, channels=1)


def test_what_is_there_is_enough() -> None:
    check_counts(DATA.model_copy(update={"train_images": 80, "test_images": 30}), TRAINING, num_train=100, num_test=30)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"train_images": 81}, "train_images 81 and val_images 20 are more than the 100"),
        ({"val_images": 100}, "val_images 100 are more than the 100"),
        ({"test_images": 31}, r"data\.test_images: 31 of 30"),
        ({"train_images": 7}, r"training\.batch_size: 8 is more than the 7"),
        ({"val_images": 93}, r"training\.batch_size: 8 is more than the 7"),
    ],
)
def test_too_many_images_asked_for_is_one_clear_message(update: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_counts(DATA.model_copy(update=update), TRAINING, num_train=100, num_test=30)


def _training(**augmentation: object) -> TrainingSpec:
    return TRAINING.model_copy(update={"augmentation": AugmentationSpec.model_validate(augmentation)})


def test_an_augmentation_that_the_images_do_not_support_is_named() -> None:
    check_augmentation(DATA, _training(hflip=0.5), unsupported=("auto_augment",))
    with pytest.raises(DataError, match=r"training\.augmentation\.auto_augment"):
        check_augmentation(DATA, _training(auto_augment="rand-m9"), unsupported=("auto_augment",))


def test_mixing_needs_an_even_batch() -> None:
    check_augmentation(DATA, _training(mixup=0.8), unsupported=())
    odd = _training(cutmix=1.0).model_copy(update={"batch_size": 7})
    with pytest.raises(DataError, match="must be even"):
        check_augmentation(DATA, odd, unsupported=())
