"""The protocol of a dataset family, and the dataset that it loads. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from harness.spec import DataSpec, TrainingSpec

if TYPE_CHECKING:
    import torch

    from harness.batch import Batch, LabelledBatch


UNREADABLE = "train/unreadable"
"""The metric of how many training images were found to be unreadable."""


class Data(Protocol):
    """The images of one run, on its device, normalized.

    Attributes:
        digest: of the files that they come from.
        num_classes: how many labels there are.
        num_train: how many images an epoch draws from.
        num_val: how many it is validated with.
        num_test: how many the test set has.
        steps_per_epoch: whole batches in an epoch; the rest of the images is left out of it.
    """

    digest: str
    num_classes: int
    num_train: int
    num_val: int
    num_test: int
    steps_per_epoch: int

    @property
    def metrics(self) -> Mapping[str, float]:
        """What is known of the images after an epoch, as `train/NAME`; usually nothing."""
        ...

    def train_batches(self, epoch: int, first: int = 0, /) -> Iterator[Batch]:
        """Augmented batches in the order of (replicate, epoch), without those before number `first` (0-based).

        The others are equal bit for bit, whatever `first` is: an interrupted epoch goes on with them.
        """
        ...

    def val_batches(self) -> Iterator[LabelledBatch]:
        """The validation images, in a fixed order."""
        ...

    def test_batches(self) -> Iterator[LabelledBatch]:
        """The test images, in a fixed order."""
        ...


@dataclass(frozen=True)
class Description:
    """What `harness data` says of a family.

    Attributes:
        location: the folder that was looked at; empty where none was given.
        usable: whether runs can use it.
        state: in words: complete, or what is missing or damaged.
        num_train: images in the training set; 0 where it is not usable.
        num_test: images in the test set; 0 where it is not usable.
        num_bytes: size of the files.
        digest: of the files; empty where it is not usable.
    """

    name: str
    location: str
    usable: bool
    state: str
    num_train: int = 0
    num_test: int = 0
    num_bytes: int = 0
    digest: str = ""


Statistics = tuple[float, float] | None
"""Mean and standard deviation, of all pixels in [0, 1], that images are normalized by; None: ImageNet's, by channel."""


class Family(Protocol):
    """A dataset family: a module, or an object, with these functions.

    It may state its `statistics`, so that `harness export` needs no image, and its `truth`, where that is not one label
    for each image (`harness.tasks.task`).
    """

    def check_data(self, spec: DataSpec, training: TrainingSpec, *, data_dir: Path | None) -> None:
        """Raise DataError where files are missing or the recipe asks for what they cannot give; reads no image."""
        ...

    def load_data(
        self, spec: DataSpec, training: TrainingSpec, *, replicate: int, data_dir: Path | None, device: torch.device
    ) -> Data:
        """Read the files of a recipe that `check_data` accepts; DataError where they are missing or damaged."""
        ...

    def digest_files(self, data_dir: Path | None, spec: DataSpec, /) -> str:
        """A digest of the files, without decoding them."""
        ...

    def describe(self, data_dir: Path | None, spec: DataSpec | None = None, /) -> Description:
        """What is there, and where; `spec` is the recipe's where one is asked about."""
        ...

    def fetch(self, data_dir: Path | None) -> Iterator[str]:
        """Get what is missing and can be had, saying so before each step; DataError where a step fails."""
        ...
