"""Batch normalization of channels-last maps."""

from jaxtyping import Float
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization (arXiv:1502.03167) of the last axis, over all others.

    Shape:
        (..., dim) to the same.
    """

    def forward(self, input: Float[Tensor, "*map dim"]) -> Float[Tensor, "*map dim"]:
        """Normalize every channel over batch and map."""
        return super().forward(input.flatten(0, -2)).view_as(input)


class SynchronizedBatchNorm(nn.SyncBatchNorm):
    """The same over the images of all processes of a group, on GPUs.

    Shape:
        (..., dim) to the same.
    """

    def forward(self, input: Float[Tensor, "*map dim"]) -> Float[Tensor, "*map dim"]:
        """Normalize every channel over batch and map."""
        return super().forward(input.flatten(0, -2)).view_as(input)
