"""Which images, and what is done to them."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat

from harness.spec.field import Channels, Classes, Images, ImagesOrNone, Probability, Side, Spec


class AugmentationSpec(Spec):
    """Random changes of training images. The first block works on batches in memory, the second on image files.

    Attributes:
        hflip: probability of a horizontal flip.
        shift: largest translation in pixels; what moves in is black.
        reprob: probability of random erasing (pixel mode).
        scale: area of the random crop, of the image's.
        auto_augment: timm's policy string.
        color_jitter: strength; without effect where `auto_augment` is set, as in timm.
        mixup: alpha; 0 is off.
        cutmix: alpha; 0 is off.
    """

    hflip: Probability = 0.0
    shift: Annotated[int, Field(ge=0, le=4_096)] = 0
    reprob: Probability = 0.0
    scale: tuple[Probability, Probability] | None = None
    auto_augment: str | None = None
    color_jitter: NonNegativeFloat | None = None
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0


class DataSpec(Spec):
    """Which images. `train_images` and `val_images` are stratified, disjoint samples of the training set.

    Attributes:
        name: a dataset family, a key of `harness.data.DATASETS`.
        image_size: side in pixels of what the model sees.
        train_images: how many are trained on; None means all that validation leaves.
        val_images: how many are held out for every curve and choice; 0 means that the test set is used for both.
        test_images: how many of the test set are measured; None means all.
        source: timm's name of a dataset (family `timm` alone).
        train_split: the dataset's own name of what is trained on (likewise).
        test_split: the dataset's own name of the test set (likewise).
        crop_pct: the part of the image that evaluation keeps (image files only).
        interpolation: how image files are resized.
        loading_workers: processes that decode image files; 0 decodes in the run's own process.
    """

    name: str
    num_classes: Classes
    channels: Channels
    image_size: Side
    train_images: Images | None = None
    val_images: ImagesOrNone
    test_images: Images | None = None
    source: str | None = None
    train_split: str = "train"
    test_split: str = "validation"
    crop_pct: Probability = 1.0
    interpolation: str = "bicubic"
    loading_workers: Annotated[int, Field(ge=0, le=1_000)] = 0
