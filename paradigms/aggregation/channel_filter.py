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
    """A learned standard deviation for each entry of a filter. It is a separate module with its own initialization."""

    def __init__(self, dim: int, num_taps: int) -> None:
        super().__init__()
        self.gain = math.sqrt(2 / num_taps)
        self.weight = nn.Parameter(torch.empty(dim * num_taps))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize normally with standard deviation √(2/K); all initialization rules of timm call this."""
        nn.init.normal_(self.weight, std=self.gain)


class ChannelFilter(WeightedSum):
    """A filter for each image and channel, which multiplies the weights (`mul`) or is added to them (`add`).

    Filters are generated from the mean over the map by two linear layers with a ReLU between them, and normalized by
    filter normalization with a learned scale for each entry, as in the released code.

    Args:
        dim: channels.
        num_taps: K.
        se_ratio: ratio of hidden channels to `dim`, rounded down to at least one channel.
        combine: `mul` or `add`.

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
        """Read the fields of this level; a sliding window has one offset per tap."""
        return cls(dim, num_offsets, se_ratio=config.se_ratio, combine=config.combine)

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Aggregation:
        """Compute the channel filters of every image."""
        filters = self.to_filters(relu(self.squeeze(x.mean(dim=(1, 2))))).unflatten(-1, (self.dim, -1))
        scaled = standardize(filters, None) * self.scale.weight.view(self.dim, -1)
        return Aggregation(**{self.combine: scaled})
