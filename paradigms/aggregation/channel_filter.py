"""The channel filters of decoupled dynamic filters (arXiv:2104.14107)."""

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from paradigms.aggregation.weighted_sum import WeightedSum
from paradigms.config import AttentionConfig
from paradigms.functional import Aggregation, standardize


class FilterScale(nn.Module):
    """A learned standard deviation for each entry of a filter; a module of its own so that it is drawn by itself."""

    def __init__(self, dim: int, num_taps: int) -> None:
        super().__init__()
        self.gain = math.sqrt(2 / num_taps)
        self.weight = nn.Parameter(torch.empty(dim * num_taps))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw normal numbers of standard deviation √(2/K); every rule of timm's calls this."""
        nn.init.normal_(self.weight, std=self.gain)


class ChannelFilter(WeightedSum):
    """Each image has a filter for each of its channels, which meets the weights: multiplied (`mul`) or added (`add`).

    Filters come from the mean over the map, by two linear layers with a ReLU between them and filter normalization with
    a learned scale for each entry, as released.

    Args:
        dim: channels.
        num_taps: K.
        se_ratio: hidden channels for each of `dim`, rounded down, at least one.
        combine: how filters and weights meet, `mul` or `add`.

    Shape:
        Input (batch, height, width, dim); `mul` or `add` (batch, dim, taps).
    """

    is_global = True
    minimum_taps: ClassVar[int] = 2
    """Of one tap there is no standard deviation."""

    def __init__(self, dim: int, num_taps: int, *, se_ratio: float, combine: str) -> None:
        super().__init__()
        narrow = max(1, int(dim * se_ratio))
        self.kind = {"mul": "filtered", "add": "added"}[combine]
        self.combine = combine
        self.squeeze = nn.Linear(dim, narrow)
        self.to_filters = nn.Linear(narrow, dim * num_taps)
        self.scale = FilterScale(dim, num_taps)
        self.dim = dim

    @classmethod
    def from_config(cls, config: AttentionConfig, dim: int, num_heads: int, num_offsets: int) -> "ChannelFilter":  # noqa: ARG003
        """Read the fields of this level; of a sliding window offsets are taps."""
        return cls(dim, num_offsets, se_ratio=config.se_ratio, combine=config.combine)

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Aggregation:
        """Compute the channel filters of every image."""
        filters = self.to_filters(relu(self.squeeze(x.mean(dim=(1, 2))))).unflatten(-1, (self.dim, -1))
        scaled = standardize(filters, None) * self.scale.weight.view(self.dim, -1)
        return Aggregation(**{self.combine: scaled})
