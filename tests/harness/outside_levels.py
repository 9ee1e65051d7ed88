"""What another package may add: a level to every room, and a dataset. Tests copy this file to a folder of its own."""

from dataclasses import replace
from typing import ClassVar

import torch

from harness.data import fashion_mnist
from harness.data.family import Description
from harness.data.memory import ImageSet, MemoryData
from harness.spec import SwinSpec
from paradigms.aggregation.weighted_sum import WeightedSum
from paradigms.backbones.swin import SwinTransformer
from paradigms.config import NeighborhoodFacts
from paradigms.neighborhood.sliding_window import SlidingWindow
from paradigms.parameterization.hadamard import Hadamard


class Sharp:
    """Softmax at half the temperature."""

    kind = "sharp"
    ignores_constant = True
    weight_sum = 1.0

    def __call__(self, logits, valid):
        counted = logits if valid is None else logits.masked_fill(~valid, -torch.inf)
        return (2 * counted).softmax(-1)


class Row(SlidingWindow):
    """The taps left and right of a query."""

    facts: ClassVar = NeighborhoodFacts(symbol="Θ", borders=("mask", "zero", "project"), size="kernel_size")

    @classmethod
    def from_config(cls, config):
        return cls((1, config.kernel_size if isinstance(config.kernel_size, int) else 3), (1, 1), config.outside_rule)


class OwnHadamard(Hadamard):
    """As in the package."""


class OwnSum(WeightedSum):
    """As in the package."""


class OwnSizes(SwinSpec):
    """Those of a Swin."""

    family = "own_swin"


class OwnSwin(SwinTransformer):
    """As in the package."""

    sizes = OwnSizes


class Negatives:
    """Fashion-MNIST, white for black."""

    def check_data(self, spec, training, *, data_dir):
        fashion_mnist.check_data(spec, training, data_dir=data_dir)

    def load_data(self, spec, training, *, replicate, data_dir, device):
        splits = fashion_mnist.load_data(spec, training, replicate=replicate, data_dir=data_dir, device=device).splits
        inverted = {
            name: ImageSet(255 - getattr(splits, name).images, getattr(splits, name).labels)
            for name in ("train", "val", "test")
        }
        splits = replace(splits, mean=1 - splits.mean, **inverted)
        digest = self.digest_files(data_dir, spec)
        return MemoryData(spec, training, splits, digest=digest, replicate=replicate, device=device)

    def digest_files(self, data_dir, _spec, /):
        return f"negatives of {fashion_mnist.digest_files(data_dir)}"

    def describe(self, data_dir, _spec=None, /):
        found = fashion_mnist.describe(data_dir)
        return Description("negatives", found.location, usable=found.usable, state=found.state)

    def fetch(self, data_dir):
        return fashion_mnist.fetch(data_dir)


PARAMETERIZATIONS = {"own_hadamard": OwnHadamard}
NORMALIZATIONS = {"sharp": Sharp}
NEIGHBORHOODS = {"row": Row}
AGGREGATIONS = {"own_sum": OwnSum}
BACKBONES = {"own_swin": OwnSwin}
DATASETS = {"negatives": Negatives()}
