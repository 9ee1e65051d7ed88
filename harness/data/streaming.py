"""Image files decoded and augmented one by one, by timm's loaders."""

import logging
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NoReturn, Protocol, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import ImageDataset, create_loader
from timm.data.loader import PrefetchLoader, fast_collate
from timm.data.random_erasing import RandomErasing
from torch.utils.data import BatchSampler, Dataset, default_collate

from harness.batch import Batch, LabelledBatch
from harness.data.augmentation import Erasing, ErasingOfPart, build_erasing, build_mixup, order_generator, seeded
from harness.data.decoding import naming_image, to_rgb
from harness.data.family import UNREADABLE
from harness.data.loading import LoadingContext
from harness.data.split import sample_test, split_training
from harness.data.token_labels import FollowedMap, LabelMaps, TokenLabeling
from harness.division import list_positions
from harness.errors import DataError, ImageError
from harness.processes import end_with_parent
from harness.seeding import seed_for
from harness.spec import DataSpec, TrainingSpec

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

MOST_REPLACEMENTS = 8
"""How many images are tried in the place of one: more in a row are unreadable only where nearly all are."""

MOST_NAMED = 3
"""How many unreadable images a message names."""


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
        unreadable: by position, whether an image was found to be unreadable by any loading process; None: no image is
            replaced.
        transform: set by `create_loader`.
        epoch: chooses the seeds; set it before the loader is iterated.
    """

    transform: Callable[[Image.Image], Pixels]

    def __init__(
        self,
        images: IndexedImages,
        indices: Sequence[int],
        *,
        replicate: int,
        maps: LabelMaps | None = None,
        replaces: bool = False,
    ) -> None:
        self.images, self.indices, self.replicate, self.maps = images, indices, replicate, maps
        self.unreadable = torch.zeros(len(indices), dtype=torch.bool).share_memory_() if replaces else None
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Sample:
        """Decode and augment one image, or the one that takes its place.

        Raises:
            DataError: the file, or that of its label map, cannot be decoded.
        """
        shown, image, label = self._open_readable(position)
        with seeded(seed_for("augmentation", self.replicate, self.epoch, "image", self.indices[position])):
            if self.maps is not None:
                return self.maps.follow(self.transform, image, self.indices[shown])
            return self.transform(image), int(label)

    def _open_readable(self, position: int) -> tuple[int, Image.Image, int]:
        """An image with its position and label; an unreadable one gives way to others of the sample, in random order.

        The order follows replicate, epoch and image alone, so that all rows and every loading process agree.
        """
        if self.unreadable is None:
            return position, *self._open(position)
        seed = seed_for("replacement", self.replicate, self.epoch, self.indices[position])
        others = np.random.default_rng(seed).integers(len(self), size=MOST_REPLACEMENTS).tolist()
        for candidate in (position, *others):
            try:
                return candidate, *self._open(candidate)
            except ImageError as error:
                self.unreadable[candidate] = True
                last = error
        raise last

    def _open(self, position: int) -> tuple[Image.Image, int]:
        index = self.indices[position]
        with naming_image(lambda: self.images.find_name(index)):
            image, label = self.images[index]
            return to_rgb(image), label

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
        self.positions = list(range(self.batch_size))
        self.erase: Erasing | None = build_erasing(training.augmentation, "after_mixing", device=device)
        self.unreadable_share, self.has_warned = spec.unreadable_share, False
        replaces = spec.unreadable_share > 0
        self.train_images = SampledImages(
            train.images, trained, replicate=replicate, maps=train.maps, replaces=replaces
        )
        self.train_loader = _build_loader(self.train_images, spec, training, device, is_training=True)
        test_images = SampledImages(test.images, tested, replicate=replicate)
        val_images = SampledImages(train.images, held_out, replicate=replicate) if spec.val_images else test_images
        self.num_val, self.num_test = len(val_images), len(test_images)
        self.test_loader = _build_loader(test_images, spec, training, device, is_training=False)
        self.val_loader = _build_loader(val_images, spec, training, device, is_training=False)

    @property
    def metrics(self) -> Mapping[str, float]:
        """How many training images this process has found to be unreadable, where the recipe lets some be replaced."""
        flags = self.train_images.unreadable
        return {} if flags is None else {UNREADABLE: float(flags.sum())}

    def take_part(self, rank: int, world_size: int) -> Self:
        """Decode from now on only the rank's part of each training batch, and every evaluation batch whose turn it is.

        The parts consist of pairs of images that are mixed with each other, and random erasing draws for the whole
        batch: so every image is the same for any number of ranks.
        """
        self.positions = list_positions(self.batch_size, part=rank, num_parts=world_size)
        self.train_loader.batch_sampler.batch_size = len(self.positions)
        self.erase = self._cut(self.erase)
        self.train_loader.random_erasing = cast("RandomErasing", self._cut(self.train_loader.random_erasing))
        for loader in (self.val_loader, self.test_loader):
            batches = BatchSampler(range(len(loader.dataset)), self.batch_size, drop_last=False)
            loader.batch_sampler.sampler = [
                image for batch in islice(batches, rank, None, world_size) for image in batch
            ]
        return self

    def _cut(self, erase: Erasing | None) -> Erasing | None:
        return None if erase is None else ErasingOfPart(erase, self.positions, self.batch_size)

    def train_batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Shuffled, augmented batches from number `first` on; an incomplete last one is left out.

        timm's loader erases batch k while it hands out k - 1, and at its start the first two. So that every draw is
        under the seed that it has in a whole epoch, the two batches before `first` are loaded too.
        """
        start = max(0, first - 2)
        self.train_images.epoch = epoch
        order = torch.randperm(self.num_train, generator=order_generator(seed_for("order", self.replicate, epoch)))
        steps = order[start * self.batch_size : self.steps_per_epoch * self.batch_size].view(-1, self.batch_size)
        self.train_loader.batch_sampler.sampler = steps[:, self.positions].flatten().tolist()
        batches = iter(self.train_loader)
        for step in range(start, self.steps_per_epoch):
            with seeded(seed_for("augmentation", self.replicate, epoch, step), device=self.device):
                images, targets = next(batches)
                if self.mix is not None:
                    images, targets = self.mix(images, targets)
                if self.erase is not None:
                    images = self.erase(images)
            self._check_unreadable()
            if step >= first:
                yield images, targets
        if self.metrics.get(UNREADABLE) and not self.has_warned:
            self.has_warned = True
            logger.warning("%s; others are trained on in their place", self._describe_unreadable())

    def _check_unreadable(self) -> None:
        """Raise a DataError where more training images are unreadable than the recipe allows."""
        if self.metrics.get(UNREADABLE, 0) > self.unreadable_share * self.num_train:
            allowed = f"data.unreadable_share allows {self.unreadable_share:g} of them"
            raise DataError(f"{self._describe_unreadable()}; {allowed}: restore or remove these files")

    def _describe_unreadable(self) -> str:
        images = self.train_images
        assert images.unreadable is not None
        found = images.unreadable.nonzero().flatten().tolist()
        names = [images.images.find_name(images.indices[position]) for position in found[:MOST_NAMED]]
        listed = ", ".join(names) + (", ..." if len(found) > MOST_NAMED else "")
        return f"{len(found):,} of {self.num_train:,} training images cannot be decoded: {listed}"

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
