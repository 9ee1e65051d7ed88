"""Linear layers that project every pixel of a map, and their initialization."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from paradigms.config import AttentionConfig


class PointwiseConv(nn.Module):
    """A 1x1 convolution of maps whose channels come last: the parameters of a linear layer, the start of a convolution.

    The rules of timm draw linear layers by a deviation of their own and leave convolutions as torch draws them.

    Attributes:
        parameter_kinds: by this an optimizer for matrices knows what it may train.

    Shape:
        (..., in_features) to (..., out_features).
    """

    parameter_kinds: ClassVar[Mapping[str, str]] = {"weight": "matrix"}

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters as torch does those of a convolution: uniform within 1/√in_features."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Float[Tensor, "*map in_features"]) -> Float[Tensor, "*map out_features"]:
        """Project every pixel."""
        return linear(x, self.weight, self.bias)


Linear = type[nn.Linear] | type[PointwiseConv]
"""A layer that projects every pixel: from the channels before and after, and whether it has a bias."""


def choose_linear(config: AttentionConfig) -> Linear:
    """What projects to queries, keys, values and logits, by how it starts."""
    return PointwiseConv if config.starts_as_released else nn.Linear
