"""Small operators and non-square images that the laws are checked on, and the report of a broken law."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paradigms.aggregation.channel_filter import ChannelFilter
from paradigms.attention import LocalAttention, build_attention
from paradigms.config import AttentionConfig

BATCH, HEIGHT, WIDTH, DIM, HEADS = 2, 9, 8, 6, 2
"""Larger than every kernel used here, not square, a multiple of the window along one axis only."""

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "local_window": {"-shifted": {"shift_size": (1, 2)}},
    "sliding_window": {"-dilated": {"dilation": (2, 1)}},
    "sliding_chunk": {"-exact": {"exact": True}},
}
"""Variants of each neighborhood, besides its default."""


class LawBroken(AssertionError):  # noqa: N818 - the name states what happened
    """A level breaks a law or one of its own declarations; the message says which."""


def require(condition: bool | Tensor, message: str) -> None:
    """Raise `LawBroken` unless the condition holds."""
    if not condition:
        raise LawBroken(message)


def choose_sizes(parameterization: Sequence[str]) -> dict[str, Any]:
    """Sizes of neighborhoods that fit the maps of the laws; non-square if the level allows it."""
    kernel_size = (5, 1) if "outlook" in parameterization else (3, 5)
    return {"window_size": (4, 4), "kernel_size": kernel_size, "chunk_size": (2, 3)}


def use_small_sizes(config: AttentionConfig) -> AttentionConfig:
    """The same operator with the sizes of `choose_sizes`."""
    return config.replace(**choose_sizes(config.parameterization))


def make_operator(config: AttentionConfig, *, dim: int = DIM, num_heads: int = HEADS) -> LocalAttention:
    """An operator in float64 whose parameters are far from zero, but do not saturate it."""
    operator = build_attention(config, dim=dim, num_heads=num_heads).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter.normal_(generator=generator).mul_(0.4)
        for module in operator.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.bias.abs_().add_(0.2)  # so that no ReLU after it is zero for every pixel
            if isinstance(module, ChannelFilter):
                module.squeeze.bias.abs_().add_(0.2)  # so that its ReLU is positive for every image
    return operator


def make_input(height: int = HEIGHT, width: int = WIDTH, dim: int = DIM) -> Tensor:
    """Images in float64, (batch, height, width, dim)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(BATCH, height, width, dim, dtype=torch.float64, generator=generator)
