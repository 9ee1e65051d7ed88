"""Scenes in memory as batches of images and objects."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from harness.batch import Batch, Images, LabelledBatch, Objects
from harness.data.augmentation import flip_images, normalize
from harness.data.memory import ShuffledBatches
from harness.data.scenes import Scenes
from harness.spec import DataSpec, TrainingSpec

EVALUATION_BATCH_SIZE = 16


@dataclass(frozen=True)
class SceneSplits:
    """The three sets of scenes of a run, and how their pixels (in [0, 1]) are distributed in the training set."""

    train: Scenes
    val: Scenes
    test: Scenes
    mean: float
    std: float


@dataclass(frozen=True)
class _SceneBatch:
    """Some scenes as tensors.

    Attributes:
        pixels: the images, and the maps of instances.
        boxes: of up to eight objects of each scene.
        labels: of these.
        counts: how many objects each scene has.
    """

    pixels: UInt8[Tensor, "batch 2 rows columns"]
    boxes: Int[Tensor, "batch 8 4"]
    labels: Int[Tensor, "batch 8"]
    counts: list[int]


class SceneData(ShuffledBatches):
    """The `Data` of a run on scenes; a flip is the only augmentation."""

    def __init__(
        self,
        spec: DataSpec,
        training: TrainingSpec,
        splits: SceneSplits,
        *,
        digest: str,
        replicate: int,
        device: torch.device,
    ) -> None:
        super().__init__(training, num_train=len(splits.train.counts), replicate=replicate)
        self.digest, self.splits, self.device = digest, splits, device
        self.num_classes = spec.num_classes
        self.num_val, self.num_test = len(splits.val.counts), len(splits.test.counts)
        self.hflip = training.augmentation.hflip

    def _train_batch(self, indices: Int[Tensor, "batch"]) -> Batch:
        scenes = _take_scenes(self.splits.train, indices)
        if self.hflip:
            scenes = _flip_scenes(scenes, torch.rand(len(indices)) < self.hflip)
        return self._to_batch(scenes)

    def val_batches(self) -> Iterator[LabelledBatch]:
        """The validation scenes in the order of their numbers."""
        return self._evaluation_batches(self.splits.val)

    def test_batches(self) -> Iterator[LabelledBatch]:
        """The test scenes in the order of their numbers."""
        return self._evaluation_batches(self.splits.test)

    def _evaluation_batches(self, scenes: Scenes) -> Iterator[LabelledBatch]:
        for indices in torch.arange(len(scenes.counts)).split(EVALUATION_BATCH_SIZE):
            yield self._to_batch(_take_scenes(scenes, indices))

    def _to_batch(self, scenes: _SceneBatch) -> tuple[Images, tuple[Objects, ...]]:
        """Normalized images and objects; each field of all scenes moves to the device at once."""
        images = normalize(scenes.pixels[:, :1], mean=self.splits.mean, std=self.splits.std)
        instances, boxes, labels = (
            part.to(self.device, non_blocking=True)
            for part in (scenes.pixels[:, 1], scenes.boxes.float(), scenes.labels.long())
        )
        numbers = torch.arange(1, 1 + max(scenes.counts), device=self.device)[:, None, None]
        rows, columns = images.shape[-2:]
        objects = tuple(
            Objects(
                size=(rows, columns),
                boxes=boxes[scene, :count],
                labels=labels[scene, :count],
                masks=instances[scene] == numbers[:count],
                crowd=torch.zeros(count, dtype=torch.bool, device=self.device),
            )
            for scene, count in enumerate(scenes.counts)
        )
        return images.to(self.device, non_blocking=True), objects


def _take_scenes(scenes: Scenes, indices: Int[Tensor, "batch"]) -> _SceneBatch:
    images, instances, boxes, labels, counts = (
        torch.from_numpy(array)[indices]
        for array in (scenes.images, scenes.instances, scenes.boxes, scenes.labels, scenes.counts)
    )
    return _SceneBatch(torch.stack([images, instances], dim=1), boxes, labels, counts.tolist())


def _flip_scenes(scenes: _SceneBatch, flipped: Tensor) -> _SceneBatch:
    """Mirror those scenes for which `flipped` (batch,) is true."""
    left, top, right, bottom = scenes.boxes.unbind(-1)
    width = scenes.pixels.shape[-1]
    mirrored = torch.stack([width - right, top, width - left, bottom], dim=-1)
    boxes = torch.where(flipped[:, None, None], mirrored, scenes.boxes)
    return _SceneBatch(flip_images(scenes.pixels, flipped), boxes, scenes.labels, scenes.counts)
