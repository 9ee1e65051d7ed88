"""The data of a recipe: dataset, splits and image size."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeFloat, model_validator

from harness.spec.field import Channels, Classes, Images, ImagesOrNone, Probability, Side, Spec, known
from harness.spec.timm_names import INTERPOLATIONS, check_policy

DATASETS = ["fashion_mnist", "cifar10", "cifar100", "image_folder", "image_shards", "timm", "fashion_scenes"]
"""The names of the dataset families; a plug-in adds its own."""

DEFAULT_TASK = "classification"


def _check_scale(scale: tuple[float, float]) -> tuple[float, float]:
    low, high = scale
    if not 0 < low <= high:
        raise ValueError(f"must be two parts of the image's area above 0, the smaller first, got {list(scale)}")
    return scale


class AugmentationSpec(Spec):
    """Random changes of training images. The first block works on batches in memory, the second on image files.

    Attributes:
        hflip: probability of a horizontal flip.
        shift: largest translation in pixels; uncovered pixels are black.
        reprob: probability of random erasing (pixel mode).
        erasing: whether images are erased before or after mixup and cutmix.
        scale: area of the random crop as a share of the image.
        interpolation: how a crop is resized; None: as `data.interpolation`; `random` draws bilinear or bicubic.
        auto_augment: timm's policy string.
        color_jitter: strength; without effect if `auto_augment` is set, as in timm.
        mixup: alpha; 0 is off.
        cutmix: alpha; 0 is off.
    """

    hflip: Probability = 0.0
    shift: Annotated[int, Field(ge=0, le=4_096)] = 0
    reprob: Probability = 0.0
    erasing: Literal["before_mixing", "after_mixing"] = "before_mixing"
    scale: Annotated[tuple[Probability, Probability], AfterValidator(_check_scale)] | None = None
    interpolation: Annotated[str, known("interpolation", (*INTERPOLATIONS, "random"))] | None = None
    auto_augment: Annotated[str, AfterValidator(check_policy)] | None = None
    color_jitter: NonNegativeFloat | None = None
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0

    @property
    def mixes_images(self) -> bool:
        """Whether targets are class probabilities instead of labels."""
        return self.mixup > 0 or self.cutmix > 0


class DataSpec(Spec):
    """The images. `train_images` and `val_images` are stratified, disjoint samples of the training set.

    Attributes:
        name: a dataset family, one of `DATASETS`.
        task: what a model is trained and scored on, one of `harness.tasks.TASKS`.
        image_size: side of the model's input in pixels.
        train_images: number of training images; None means all except validation images.
        resample_train: whether each replicate draws its own training images, the same for all rows; else all replicates
            have the same.
        val_images: number of images held out for curves and decisions; 0 means that the test set is used for both.
        test_images: number of test images that are measured; None means all.
        source: timm's name of a dataset (family `timm` only).
        train_split: the dataset's name of the training split (family `timm` only).
        test_split: the dataset's name of the test split (family `timm` only).
        crop_pct: the share of the image's side that evaluation keeps (image files only).
        interpolation: how image files are resized.
        loading_workers: number of processes that decode image files; 0 decodes in the process of the run.
        unreadable_share: largest share of training images that may be unreadable (image files only); another image is
            trained on instead. Validation and test images must all be readable.
    """

    name: str
    task: str = DEFAULT_TASK
    num_classes: Classes
    channels: Channels
    image_size: Side
    train_images: Images | None = None
    resample_train: bool = False
    val_images: ImagesOrNone
    test_images: Images | None = None
    source: str | None = None
    train_split: str = "train"
    test_split: str = "validation"
    crop_pct: Annotated[float, Field(gt=0, le=1)] = 1.0
    interpolation: Annotated[str, known("interpolation", INTERPOLATIONS)] = "bicubic"
    loading_workers: Annotated[int, Field(ge=0, le=1_000)] = 0
    unreadable_share: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _check_sample(self) -> Self:
        if self.resample_train and self.train_images is None:
            raise ValueError("resample_train draws train_images of the training set: state their number")
        return self
