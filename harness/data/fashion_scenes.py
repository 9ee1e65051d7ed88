"""Scenes of one to eight items of Fashion-MNIST with boxes, masks and classes; composed when a run loads them.

An item is drawn at 0.7 to 2 times its size, and later items hide earlier ones. Noise and patches of other images
clutter the background. An item of which fewer than 32 pixels, or less than a quarter, are visible is no object.

Training, validation and test scenes share no image of Fashion-MNIST.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data import fashion_mnist
from harness.data.checks import check_augmentation, check_shape
from harness.data.family import Data, Description
from harness.data.scenes import COMPOSITION, Scenes, compose_scenes
from harness.errors import DataError
from harness.seeding import seed_for
from harness.spec import AugmentationSpec, DataSpec, TrainingSpec
from harness.tasks.task import OBJECTS

if TYPE_CHECKING:
    import torch

NAME = "fashion_scenes"
MIN_IMAGE_SIZE = 64
MEAN, STD = 0.180, 0.254
"""Of all pixels of training scenes of 128x128, in [0, 1]."""

statistics = MEAN, STD
truth = OBJECTS

_UNSUPPORTED = tuple(name for name in AugmentationSpec.model_fields if name != "hflip")

TRAIN_PICTURES, VAL_PICTURES = slice(0, 50_000), slice(50_000, 60_000)
"""The images of the training set of Fashion-MNIST that training and validation scenes are composed of."""


def check_data(spec: DataSpec, training: TrainingSpec, *, data_dir: Path | None) -> None:
    """The files of Fashion-MNIST are there, and the recipe states what scenes it wants."""
    check_shape(spec, num_classes=fashion_mnist.NUM_CLASSES, channels=1)
    if spec.image_size < MIN_IMAGE_SIZE:
        raise DataError(f"data.image_size: scenes have at least {MIN_IMAGE_SIZE} pixels a side, got {spec.image_size}")
    for field in ("train_images", "val_images", "test_images"):
        if not getattr(spec, field):
            raise DataError(f"data.{field}: {NAME} composes as many scenes as the recipe says; state their number")
    if spec.train_images is not None and training.batch_size > spec.train_images:
        raise DataError(
            f"training.batch_size: {training.batch_size} is more than the {spec.train_images} scenes trained on"
        )
    check_augmentation(spec, training, unsupported=_UNSUPPORTED)
    digest_files(data_dir)


def load_data(
    spec: DataSpec, training: TrainingSpec, *, replicate: int, data_dir: Path | None, device: torch.device
) -> Data:
    """Decode Fashion-MNIST, checked by digest, and compose the recipe's scenes."""
    from harness.data.scene_data import SceneData, SceneSplits

    splits = SceneSplits(*compose_splits(spec, replicate=replicate, data_dir=data_dir), mean=MEAN, std=STD)
    digest = digest_files(data_dir)
    return SceneData(spec, training, splits, digest=digest, replicate=replicate, device=device)


def compose_splits(spec: DataSpec, *, replicate: int, data_dir: Path | None) -> tuple[Scenes, Scenes, Scenes]:
    """Training, validation and test scenes of a recipe; `replicate` matters to one that resamples alone.

    Fewer scenes of a split are the first ones of more.
    """
    trained, trained_classes = fashion_mnist.read_arrays(data_dir, "train")
    tested, tested_classes = fashion_mnist.read_arrays(data_dir, "test")
    assert spec.train_images is not None
    assert spec.test_images is not None
    own = (replicate,) if spec.resample_train else ()
    return (
        compose_scenes(
            trained[TRAIN_PICTURES, 0],
            trained_classes[TRAIN_PICTURES],
            [seed_for("scene", "train", number, *own) for number in range(spec.train_images)],
            size=spec.image_size,
        ),
        compose_scenes(
            trained[VAL_PICTURES, 0],
            trained_classes[VAL_PICTURES],
            [seed_for("scene", "val", number) for number in range(spec.val_images)],
            size=spec.image_size,
        ),
        compose_scenes(
            tested[:, 0],
            tested_classes,
            [seed_for("scene", "test", number) for number in range(spec.test_images)],
            size=spec.image_size,
        ),
    )


def digest_files(data_dir: Path | None, _spec: DataSpec | None = None, /) -> str:
    """Covers the files of Fashion-MNIST and the version of the composition."""
    return hashlib.sha256(f"{fashion_mnist.digest_files(data_dir)}\n{COMPOSITION}".encode()).hexdigest()


def describe(data_dir: Path | None, spec: DataSpec | None = None, /) -> Description:
    """Where the files of Fashion-MNIST are; the images counted are the recipe's scenes, else what they are made of."""
    found = replace(fashion_mnist.describe(data_dir), name=NAME)
    if not found.usable:
        return found
    if spec is not None:
        num_train, num_test = (spec.train_images or 0) + spec.val_images, spec.test_images or 0
        found = replace(found, num_train=num_train, num_test=num_test)
    return replace(found, state="scenes are composed of the images of Fashion-MNIST", digest=digest_files(data_dir))


def fetch(data_dir: Path | None) -> Iterator[str]:
    """Nothing: the files of Fashion-MNIST ship with the package."""
    return fashion_mnist.fetch(data_dir)
