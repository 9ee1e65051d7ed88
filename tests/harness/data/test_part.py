"""The parts that ranks read are those of the whole batches, whatever is drawn for them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness.batch import TokenTargets
from harness.data import image_folder
from harness.data.family import Data
from harness.data.memory import ImageSet, MemoryData, Splits
from harness.data.part import take_part
from harness.division import list_positions
from harness.ranks import Ranks
from harness.spec import AugmentationSpec, DataSpec, TokenLabelsSpec, TrainingSpec

CPU = torch.device("cpu")
MIXED = {"hflip": 0.5, "reprob": 0.5, "mixup": 0.8, "cutmix": 1.0}
CROPS = {**MIXED, "scale": (0.3, 1.0), "auto_augment": "rand-m9-mstd0.5-inc1"}
BATCH = 10


def load_memory(_folder: Path, training: TrainingSpec) -> Data:
    generator = np.random.default_rng(0)
    images = ImageSet.take(
        generator.integers(0, 256, (150, 1, 8, 8), dtype=np.uint8), np.arange(150, dtype=np.uint8) % 3, np.arange(150)
    )
    spec = DataSpec(name="noise", num_classes=3, channels=1, image_size=8, val_images=150)
    return MemoryData(
        spec, training, Splits(images, images, images, mean=0.5, std=0.3), digest="0", replicate=0, device=CPU
    )


def load_folder(folder: Path, training: TrainingSpec) -> Data:
    spec = DataSpec(
        name="image_folder", num_classes=2, channels=3, image_size=16, val_images=0, crop_pct=0.9, loading_workers=0
    )
    return image_folder.load_data(spec, training, replicate=0, data_dir=folder, device=CPU)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 17 images to train on and 13 to test on, with label maps."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 17), ("val", 13)):
        for number, name in enumerate(("ant", "bee")):
            (folder / split / name).mkdir(parents=True)
            (folder / "label_maps" / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
                scores = torch.rand(1, 4, 4)
                label_map = torch.stack([scores, torch.full_like(scores, number)]).half()
                torch.save(label_map, folder / "label_maps" / name / f"{index}.pt")
    return folder


def make_training(augmentation: dict[str, Any], **values: Any) -> TrainingSpec:
    return TrainingSpec(lr=1e-3, batch_size=BATCH, epochs=1, augmentation=AugmentationSpec(**augmentation), **values)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize(
    ("load", "training"),
    [
        pytest.param(load_memory, make_training({**MIXED, "shift": 1}, smoothing=0.1), id="in memory"),
        pytest.param(load_folder, make_training(CROPS, smoothing=0.1), id="streamed, erased before mixing"),
        pytest.param(load_folder, make_training({**CROPS, "erasing": "after_mixing"}), id="streamed, erased after"),
        pytest.param(
            load_folder,
            make_training({**CROPS, "mixup": 0, "cutmix": 0}, token_labels=TokenLabelsSpec(grid=4)),
            id="token labels",
        ),
    ],
)
def test_a_rank_reads_its_part_of_every_training_batch(
    load: Any, training: TrainingSpec, world_size: int, folder: Path
) -> None:
    """Also from a batch within the epoch on."""
    whole = list(load(folder, training).train_batches(2))
    assert len(whole) >= 3
    for rank, first in ((rank, first) for rank in range(world_size) for first in (0, 2)):
        positions = list_positions(BATCH, part=rank, num_parts=world_size)
        part = take_part(load(folder, training), Ranks(CPU, rank, world_size))
        batches = list(part.train_batches(2, first))
        for (images, targets), (expected, wanted) in zip(batches, whole[first:], strict=True):
            assert torch.equal(images, expected[positions])
            if isinstance(wanted, TokenTargets):
                assert isinstance(targets, TokenTargets)
                assert targets.box == wanted.box
                assert torch.equal(targets.tokens, wanted.tokens[positions])
                assert torch.equal(targets.image, wanted.image[positions])
            else:
                assert torch.equal(targets, wanted[positions])


@pytest.mark.parametrize("load", [load_memory, load_folder])
@pytest.mark.parametrize("world_size", [2, 4])
def test_evaluation_batches_are_dealt_whole_and_in_turn(load: Any, world_size: int, folder: Path) -> None:
    training = make_training({})
    whole = list(load(folder, training).test_batches())
    parts = [take_part(load(folder, training), Ranks(CPU, rank, world_size)) for rank in range(world_size)]
    for rank, part in enumerate(parts):
        found = list(part.test_batches())
        assert [len(labels) for _, labels in found] == [len(labels) for _, labels in whole[rank::world_size]]
        for (images, labels), (expected, wanted) in zip(found, whole[rank::world_size], strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(labels, wanted)
