"""The layers before and after the four rooms: input, value and output projections."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from paradigms.batch_norm import BatchNorm
from paradigms.pointwise import Linear


class Projections(NamedTuple):
    """Three layers that map every pixel, each (batch, height, width, dim) to the same.

    Attributes:
        input: the layer before parameterization, values and aggregation.
        value: the layer from its result to values.
        output: the layer after the aggregation.
    """

    input: nn.Module
    value: nn.Module
    output: nn.Module


class NormalizedInput(nn.Module):
    """The first layers of a block of arXiv:2106.04263: linear without bias, batch norm, ReLU.

    Shape:
        (..., dim) to the same.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim, bias=False)
        self.norm = BatchNorm(dim)

    def forward(self, x: Float[Tensor, "*map dim"]) -> Float[Tensor, "*map dim"]:
        """Project every pixel."""
        return relu(self.norm(self.linear(x)))


class NormalizedOutput(nn.Module):
    """The last layers of a block of arXiv:2106.04263: bias, batch norm, ReLU, linear without bias, batch norm.

    The bias is that of the preceding depthwise convolution.

    Shape:
        (..., dim) to the same.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(dim))
        self.inner_norm = BatchNorm(dim)
        self.linear = nn.Linear(dim, dim, bias=False)
        self.norm = BatchNorm(dim)

    def forward(self, x: Float[Tensor, "*map dim"]) -> Float[Tensor, "*map dim"]:
        """Project every pixel."""
        return self.norm(self.linear(relu(self.inner_norm(x + self.bias))))  # type: ignore[no-any-return]


def _build_linear(dim: int, qkv_bias: bool, value: Linear) -> Projections:
    return Projections(nn.Identity(), value(dim, dim, bias=qkv_bias), nn.Linear(dim, dim))


def _build_none(dim: int, qkv_bias: bool, value: Linear) -> Projections:  # noqa: ARG001 - what every level is asked
    return Projections(nn.Identity(), nn.Identity(), nn.Identity())


def _build_batch_norm(
    dim: int,
    qkv_bias: bool,  # noqa: ARG001 - a norm follows, no bias is needed
    value: Linear,  # noqa: ARG001 - values are not projected
) -> Projections:
    return Projections(NormalizedInput(dim), nn.Identity(), NormalizedOutput(dim))


PROJECTIONS: dict[str, Callable[[int, bool, Linear], Projections]] = {
    "linear": _build_linear,
    "none": _build_none,
    "batch_norm": _build_batch_norm,
}
"""Functions of the channels, the bias of query, key and value projections, and the class of the layers."""
