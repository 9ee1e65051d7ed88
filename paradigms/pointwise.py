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
    """A 1x1 convolution of channels-last maps: a linear layer that is initialized like a convolution.

    timm's rules initialize linear layers with their own standard deviation and keep torch's initialization of
    convolutions.

    Attributes:
        parameter_kinds: the kind of each parameter, for optimizers of matrices.

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
        """Initialize all parameters like torch's convolutions: uniform within ±1/√in_features."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Float[Tensor, "*map in_features"]) -> Float[Tensor, "*map out_features"]:
        """Project every pixel."""
        return linear(x, self.weight, self.bias)


Linear = type[nn.Linear] | type[PointwiseConv]
"""The class of a layer that projects every pixel; its arguments are the channels in and out, and the bias."""


def choose_linear(config: AttentionConfig) -> Linear:
    """The class of the layers that project to queries, keys, values and logits."""
    return PointwiseConv if config.starts_as_released else nn.Linear
