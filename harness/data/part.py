"""The part of the data that one rank of a run reads."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Protocol, runtime_checkable

from harness.batch import Batch, LabelledBatch, take_images
from harness.data.family import Data
from harness.division import list_positions
from harness.ranks import Ranks


@runtime_checkable
class Divisible(Protocol):
    """A `Data` that can read a part without the rest."""

    def take_part(self, rank: int, world_size: int, /) -> Data:
        """The same as of `PartOfData`."""
        ...


class PartOfData:
    """The `Data` of one rank: its part of each training batch, and evaluation batches in turn.

    Each batch is augmented and mixed as a whole and then cut, so that no image depends on the number of ranks.
    Evaluation batches stay whole, since the rounding of a matrix product depends on its shape.
    """

    def __init__(self, data: Data, rank: int, world_size: int) -> None:
        self._data, self._rank, self._world_size = data, rank, world_size
        self.digest, self.num_classes = data.digest, data.num_classes
        self.num_train, self.num_val, self.num_test = data.num_train, data.num_val, data.num_test
        self.steps_per_epoch = data.steps_per_epoch

    def train_batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The rank's part of every batch."""
        for images, targets in self._data.train_batches(epoch, first):
            positions = list_positions(len(images), part=self._rank, num_parts=self._world_size)
            yield take_images((images, targets), positions)

    @property
    def metrics(self) -> Mapping[str, float]:
        """What this rank has noticed of the images."""
        return self._data.metrics

    def val_batches(self) -> Iterator[LabelledBatch]:
        """Every batch whose turn it is."""
        return islice(self._data.val_batches(), self._rank, None, self._world_size)

    def test_batches(self) -> Iterator[LabelledBatch]:
        """Every batch whose turn it is."""
        return islice(self._data.test_batches(), self._rank, None, self._world_size)


def take_part(data: Data, ranks: Ranks) -> Data:
    """What this rank reads of the data; all of it where it is alone."""
    if ranks.world_size == 1:
        return data
    if isinstance(data, Divisible):
        return data.take_part(ranks.rank, ranks.world_size)
    return PartOfData(data, ranks.rank, ranks.world_size)
