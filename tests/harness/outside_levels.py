"""What another package may add: a level to every room, and a dataset. Tests copy this file to a folder of its own."""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import nn

from harness.data import fashion_mnist
from harness.data.family import Description
from harness.data.memory import ImageSet, MemoryData
from harness.spec import SwinSpec
from paradigms.aggregation.weighted_sum import WeightedSum
from paradigms.backbones.swin import SwinTransformer
from paradigms.facts import Field, NeighborhoodFacts
from paradigms.neighborhood.sliding_window import SlidingWindow
from paradigms.parameterization.hadamard import Hadamard


class Sharp:
    """Softmax at another temperature."""

    kind = "sharp"
    ignores_constant = True
    weight_sum = 1.0
    fields: ClassVar = {"temperature": Field(kind="float", default=0.5, above=0, doc="Of the softmax.")}

    def __init__(self, temperature):
        self.temperature = temperature

    @classmethod
    def from_config(cls, config):
        return cls(config.temperature)

    def __call__(self, logits, valid):
        counted = logits if valid is None else logits.masked_fill(~valid, -torch.inf)
        return (counted / self.temperature).softmax(-1)


class Learned(nn.Module):
    """Softmax at a temperature that is learned."""

    kind = "learned"
    ignores_constant = True
    weight_sum = 1.0

    def __init__(self):
        super().__init__()
        self.log_temperature = nn.Parameter(torch.zeros(()))

    @classmethod
    def from_config(cls, _config):
        return cls()

    def forward(self, logits, valid):
        logits = logits / self.log_temperature.exp()
        return (logits if valid is None else logits.masked_fill(~valid, -torch.inf)).softmax(-1)


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
NORMALIZATIONS = {"sharp": Sharp, "learned": Learned}
NEIGHBORHOODS = {"row": Row}
AGGREGATIONS = {"own_sum": OwnSum}
BACKBONES = {"own_swin": OwnSwin}
DATASETS = {"negatives": Negatives()}
