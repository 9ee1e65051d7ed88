"""Small images kept in memory and augmented as whole batches."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from harness.batch import Batch, LabelledBatch
from harness.data.augmentation import BatchAugmentation, build_erasing, build_mixup, normalize, order_generator, seeded
from harness.data.split import Indices, sample_test, split_training
from harness.seeding import seed_for
from harness.spec import DataSpec, TrainingSpec

EVALUATION_BATCH_SIZE = 64
"""Larger batches of small images leave a CPU's cache and are slower."""

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Images (images, channels, height, width) and labels (images,)."""


@dataclass(frozen=True)
class ImageSet:
    """Images as bytes, with their labels."""

    images: UInt8[Tensor, "images channels height width"]
    labels: Int[Tensor, "images"]

    @classmethod
    def take(cls, images: NDArray[np.uint8], labels: NDArray[np.uint8], indices: Indices) -> Self:
        """Copy a sample out of arrays of (images, channels, height, width) and (images,)."""
        return cls(torch.from_numpy(images[indices]), torch.from_numpy(labels[indices]).long())


@dataclass(frozen=True)
class Splits:
    """The three image sets of a run, and how their pixels (in [0, 1]) are distributed in the training set."""

    train: ImageSet
    val: ImageSet
    test: ImageSet
    mean: float
    std: float


def take_splits(spec: DataSpec, train: Arrays, test: Arrays, *, replicate: int, mean: float, std: float) -> Splits:
    """The samples that a recipe asks for; without validation images the test set takes their place."""
    held_out, trained = split_training(train[1], spec, replicate=replicate)
    tested = sample_test(test[1], spec)
    measured = ImageSet.take(*test, tested)
    return Splits(
        train=ImageSet.take(*train, trained),
        val=ImageSet.take(*train, held_out) if spec.val_images else measured,
        test=measured,
        mean=mean,
        std=std,
    )


class ShuffledBatches(ABC):
    """Training batches of images in memory, in a random order for each replicate and epoch.

    Images are augmented on the CPU whatever the device, so that the device does not change what a model sees.
    """

    def __init__(self, training: TrainingSpec, *, num_train: int, replicate: int) -> None:
        self.metrics: Mapping[str, float] = {}
        self.num_train, self.replicate = num_train, replicate
        self.batch_size = training.batch_size
        self.steps_per_epoch = self.num_train // self.batch_size

    def train_batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Shuffled, augmented batches from number `first` on; an incomplete last one is left out."""
        order = torch.randperm(self.num_train, generator=order_generator(seed_for("order", self.replicate, epoch)))
        for step in range(first, self.steps_per_epoch):
            indices = order[step * self.batch_size : (step + 1) * self.batch_size]
            with seeded(seed_for("augmentation", self.replicate, epoch, step)):
                batch = self._train_batch(indices)
            yield batch

    @abstractmethod
    def _train_batch(self, indices: Int[Tensor, "batch"]) -> Batch:
        """These images, augmented from the global generators, on the run's device."""


class MemoryData(ShuffledBatches):
    """The `Data` of a run whose labelled images fit into memory."""

    def __init__(
        self,
        spec: DataSpec,
        training: TrainingSpec,
        splits: Splits,
        *,
        digest: str,
        replicate: int,
        device: torch.device,
    ) -> None:
        super().__init__(training, num_train=len(splits.train.labels), replicate=replicate)
        self.digest, self.splits, self.device = digest, splits, device
        self.num_classes = spec.num_classes
        self.num_val, self.num_test = len(splits.val.labels), len(splits.test.labels)
        self.augment = BatchAugmentation(training.augmentation, mean=splits.mean, std=splits.std)
        self.mixup = build_mixup(spec, training)
        self.erase = build_erasing(training.augmentation, "after_mixing")

    def _train_batch(self, indices: Int[Tensor, "batch"]) -> Batch:
        images, targets = self.augment(self.splits.train.images[indices]), self.splits.train.labels[indices]
        if self.mixup is not None:
            images, targets = self.mixup(images, targets)
        images = images if self.erase is None else self.erase(images)
        return images.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True)

    def val_batches(self) -> Iterator[LabelledBatch]:
        """The validation images in the order of the files."""
        return self._evaluation_batches(self.splits.val)

    def test_batches(self) -> Iterator[LabelledBatch]:
        """The test images in the order of the files."""
        return self._evaluation_batches(self.splits.test)

    def _evaluation_batches(self, images: ImageSet) -> Iterator[LabelledBatch]:
        for start in range(0, len(images.labels), EVALUATION_BATCH_SIZE):
            batch = slice(start, start + EVALUATION_BATCH_SIZE)
            pixels = normalize(images.images[batch], mean=self.splits.mean, std=self.splits.std)
            yield pixels.to(self.device), images.labels[batch].to(self.device)
