"""Image files decoded and augmented one by one, by timm's loaders."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import ImageDataset, create_loader
from timm.data.loader import PrefetchLoader, fast_collate
from torch.utils.data import Dataset, default_collate

from harness.batch import Batch, LabelledBatch
from harness.data.augmentation import build_erasing, build_mixup, order_generator, seeded
from harness.data.decoding import naming_image, to_rgb
from harness.data.loading import LoadingContext
from harness.data.split import sample_test, split_training
from harness.data.token_labels import FollowedMap, LabelMaps, TokenLabeling
from harness.errors import DataError
from harness.processes import end_with_parent
from harness.seeding import seed_for
from harness.spec import DataSpec, TrainingSpec

Pixels = NDArray[np.uint8]


class IndexedImages(Protocol):
    """Items are (image, label), by their number."""

    def __len__(self) -> int:
        """The number of images."""
        ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]:
        """Decode one, in the mode that it has; whatever its decoder raises where it cannot be decoded."""
        ...

    def find_name(self, index: int, /) -> str:
        """Which one it is, for people: its file where it has one."""
        ...


@dataclass(frozen=True)
class LabelledImages:
    """One split of a dataset: labels that are known without decoding any image, and label maps where there are any."""

    images: IndexedImages
    labels: NDArray[np.int64]
    maps: LabelMaps | None = None


Sample = tuple[Pixels, int | FollowedMap]
"""Pixels and label, or pixels and label map."""


class SampledImages(Dataset[Sample]):
    """Some of a split's images, in RGB; each is augmented under a seed of its own, whoever decodes it and when.

    Attributes:
        transform: set by `create_loader`.
        epoch: chooses the seeds; set it before the loader is iterated.
    """

    transform: Callable[[Image.Image], Pixels]

    def __init__(
        self, images: IndexedImages, indices: Sequence[int], *, replicate: int, maps: LabelMaps | None = None
    ) -> None:
        self.images, self.indices, self.replicate, self.maps = images, indices, replicate, maps
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Sample:
        """Decode and augment one image.

        Raises:
            DataError: the file, or that of its label map, cannot be decoded.
        """
        index = self.indices[position]
        with naming_image(lambda: self.images.find_name(index)):
            image, label = self.images[index]
            image = to_rgb(image)
        with seeded(seed_for("augmentation", self.replicate, self.epoch, "image", index)):
            if self.maps is not None:
                return self.maps.follow(self.transform, image, index)
            return self.transform(image), int(label)

    def __getitems__(self, positions: Sequence[int]) -> "list[Sample] | DataError":
        """A batch for torch's loader, or why there is none: an exception would arrive as its process's traceback."""
        try:
            return [self[position] for position in positions]
        except DataError as error:
            return error


@dataclass(frozen=True)
class NoBatch:
    """What a loading process sends in place of images and targets; timm's loader asks both for their copy on a device.

    Attributes:
        error: why there are none.
    """

    error: DataError

    def to(self, **_: object) -> NoReturn:
        """Raise the error, in the process that wanted the batch."""
        raise self.error


@dataclass(frozen=True)
class _Collate:
    """Makes a batch of samples.

    Attributes:
        join: timm's way, or torch's where there are label maps: timm's takes labels and tensors alone.
    """

    join: Callable[[list[Any]], Any]

    def __call__(self, samples: list[Sample] | DataError) -> Any:
        if isinstance(samples, DataError):
            return NoBatch(samples), NoBatch(samples)
        return self.join(samples)


class StreamedData:
    """The `Data` of a run whose images are decoded one by one, from a split to train on and one to test on."""

    def __init__(
        self,
        spec: DataSpec,
        training: TrainingSpec,
        train: LabelledImages,
        test: LabelledImages,
        *,
        digest: str,
        replicate: int,
        device: torch.device,
    ) -> None:
        held_out, trained = (part.tolist() for part in split_training(train.labels, spec, replicate=replicate))
        tested, self.num_train = sample_test(test.labels, spec).tolist(), len(trained)
        self.digest, self.replicate, self.device = digest, replicate, device
        self.num_classes, self.batch_size = spec.num_classes, training.batch_size
        self.steps_per_epoch = self.num_train // self.batch_size
        self.mix = build_mixup(spec, training) if training.token_labels is None else TokenLabeling(spec, training)
        self.erase = build_erasing(training.augmentation, "after_mixing", device=device)
        self.train_images = SampledImages(train.images, trained, replicate=replicate, maps=train.maps)
        self.train_loader = _build_loader(self.train_images, spec, training, device, is_training=True)
        test_images = SampledImages(test.images, tested, replicate=replicate)
        val_images = SampledImages(train.images, held_out, replicate=replicate) if spec.val_images else test_images
        self.num_val, self.num_test = len(val_images), len(test_images)
        self.test_loader = _build_loader(test_images, spec, training, device, is_training=False)
        self.val_loader = _build_loader(val_images, spec, training, device, is_training=False)

    def train_batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Shuffled, augmented batches from number `first` on; an incomplete last one is left out.

        timm's loader erases batch k while it hands out k - 1, and at its start the first two. So that every draw is
        under the seed that it has in a whole epoch, the two batches before `first` are loaded too.
        """
        start = max(0, first - 2)
        self.train_images.epoch = epoch
        order = torch.randperm(self.num_train, generator=order_generator(seed_for("order", self.replicate, epoch)))
        self.train_loader.batch_sampler.sampler = order[start * self.batch_size :].tolist()
        batches = iter(self.train_loader)
        for step in range(start, self.steps_per_epoch):
            with seeded(seed_for("augmentation", self.replicate, epoch, step), device=self.device):
                images, targets = next(batches)
                if self.mix is not None:
                    images, targets = self.mix(images, targets)
                if self.erase is not None:
                    images = self.erase(images)
            if step >= first:
                yield images, targets

    def val_batches(self) -> Iterator[LabelledBatch]:
        """The validation images in the order of the files."""
        return iter(self.val_loader)

    def test_batches(self) -> Iterator[LabelledBatch]:
        """The test images in the order of the files."""
        return iter(self.test_loader)


def _build_loader(
    images: SampledImages, spec: DataSpec, training: TrainingSpec, device: torch.device, *, is_training: bool
) -> PrefetchLoader:
    """Normalizes, and erases, on the device; without `is_training` nothing is random and no image is left out."""
    augmentation = training.augmentation
    loader: PrefetchLoader = create_loader(
        cast("ImageDataset", images),
        input_size=(spec.channels, spec.image_size, spec.image_size),
        batch_size=training.batch_size,
        is_training=is_training,
        scale=augmentation.scale,
        hflip=augmentation.hflip,
        color_jitter=augmentation.color_jitter or 0.0,
        auto_augment=augmentation.auto_augment,
        re_prob=augmentation.reprob if augmentation.erasing == "before_mixing" else 0.0,
        re_mode="pixel",
        crop_pct=spec.crop_pct,
        interpolation=(is_training and augmentation.interpolation) or spec.interpolation,
        collate_fn=_Collate(fast_collate if images.maps is None else default_collate),
        num_workers=spec.loading_workers,
        persistent_workers=False,
        pin_memory=device.type == "cuda",
        device=device,
    )
    if spec.loading_workers and sys.platform == "linux":
        loader.loader.multiprocessing_context = LoadingContext()
        loader.loader.worker_init_fn = partial(_start_loading, loader.loader.worker_init_fn)
    return loader


def _start_loading(start: Callable[[int], None] | None, worker: int) -> None:
    """In a loading process: it ends with the process that it loads for, even while it decodes, and not before.

    A SIGTERM to the whole group leaves that process time for a checkpoint.
    """
    end_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if start is not None:
        start(worker)
