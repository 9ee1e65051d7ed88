"""Operators and inputs that every law is checked on."""

from dataclasses import astuple, replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paradigms.aggregation.channel_filter import ChannelFilter
from paradigms.attention import LocalAttention, build_attention
from paradigms.config import (
    BORDERS,
    BORDERS_WITHOUT_BIAS,
    COMBINATIONS,
    NEIGHBORHOODS,
    NORMALIZATIONS,
    PROJECTIONS,
    TERMS,
    AttentionConfig,
)
from paradigms.presets import PRESETS

from .covering import choose_pairwise

BATCH, HEIGHT, WIDTH, DIM, HEADS = 2, 9, 8, 6, 2
"""Larger than every kernel used here, not square, a multiple of the window along one axis only."""


def _small(config: AttentionConfig) -> AttentionConfig:
    kernel_size = (5, 1) if "outlook" in config.parameterization else (3, 5)
    return replace(config, window_size=(4, 4), kernel_size=kernel_size, chunk_size=(2, 3))


VARIANTS: dict[str, dict[str, dict[str, object]]] = {
    "local_window": {"-shifted": {"shift_size": (1, 2)}},
    "sliding_window": {"-dilated": {"dilation": (2, 1)}},
    "sliding_chunk": {"-exact": {"exact": True}},
}
"""Of each neighborhood, besides its default."""


GHOSTS: dict[str, dict[str, Any]] = {
    "added": {"ghost_lambda": 0.0, "ghost_gamma": 0.5},
    "multiplied": {"ghost_lambda": 1.0, "ghost_gamma": 0.0, "ghost_map": "interleaved"},
    "both": {"ghost_lambda": 2.0, "ghost_gamma": 1.0, "ghost_map": "interleaved"},
    "real-power": {"ghost_lambda": 0.7, "ghost_gamma": 1.0, "ghost_heads": 2, "ghost_rate": 4.0},
    "off": {"ghost_lambda": 0.0, "ghost_gamma": 0.0},
}
"""Settings of the ghost head: each formula, each map."""

FILTERS = ("involution", "ddf", "dynamic_conv", "outlook")


def _every_level() -> dict[str, AttentionConfig]:
    """Each normalization with each neighborhood, variant and border, all terms; and each term alone."""
    found = {}
    for normalization, neighborhood in product(NORMALIZATIONS, NEIGHBORHOODS):
        for border in BORDERS[neighborhood]:
            for suffix, fields in {"": {}, **VARIANTS[neighborhood]}.items():
                config = AttentionConfig(
                    parameterization=TERMS, normalization=normalization, neighborhood=neighborhood, border=border
                )
                found[f"{normalization}-{neighborhood}{suffix}-{border}"] = replace(_small(config), **fields)
    for term, neighborhood in product(TERMS, NEIGHBORHOODS):
        found[f"{term}-{neighborhood}"] = _small(AttentionConfig(parameterization=(term,), neighborhood=neighborhood))
    for neighborhood in NEIGHBORHOODS:
        for border in BORDERS[neighborhood]:
            strict = AttentionConfig(parameterization=("hadamard",), neighborhood=neighborhood, border=border)
            found[f"hadamard-{neighborhood}-{border}"] = _small(strict)
            for name, ghost in GHOSTS.items() if border == BORDERS[neighborhood][0] else [("both", GHOSTS["both"])]:
                fields = {"parameterization": TERMS, "aggregation": "ghost_head", "neighborhood": neighborhood}
                config = AttentionConfig(**fields, border=border, **ghost)
                found[f"ghost-{name}-{neighborhood}-{border}"] = _small(config)
    for border, size in product(("zero", "mask"), (None, 1, (1, 3))):
        config = AttentionConfig(
            parameterization=("hadamard_conv",),
            neighborhood="sliding_window",
            border=border,
            group_width=2,
            hadamard_size=size,
        )
        found[f"hadamard_conv-{border}-{size}"] = _small(config)
    return {**found, **_every_filter(), **_every_projection()}


def _every_filter() -> dict[str, AttentionConfig]:
    """Each parameterization that generates filters, with each normalization and border."""
    found = {}
    for name, normalization, border in product(FILTERS, NORMALIZATIONS, ("zero", "mask", "project")):
        fields = {"normalization": normalization, "neighborhood": "sliding_window", "border": border}
        found[f"{name}-{normalization}-{border}"] = _small(AttentionConfig(parameterization=(name,), **fields))
    for combine, border in product(COMBINATIONS, ("zero", "mask", "project")):
        fields = {"aggregation": "channel_filter", "combine": combine, "neighborhood": "sliding_window"}
        config = AttentionConfig(parameterization=TERMS, border=border, se_ratio=0.5, **fields)
        found[f"channel_filter-{combine}-{border}"] = _small(config)
    return found


def _every_projection() -> dict[str, AttentionConfig]:
    """Each projection around windows, with each border that it knows."""
    found = {}
    for projections, border in product(PROJECTIONS, BORDERS["local_window"]):
        if border in BORDERS_WITHOUT_BIAS.get(projections, BORDERS["local_window"]):
            found[f"{projections}-{border}"] = _small(AttentionConfig(projections=projections, border=border))
    return found


OF_PRESETS = {name: _small(preset.config) for name, preset in PRESETS.items()}
OF_LEVELS = _every_level()
OPERATORS = {**OF_PRESETS, **OF_LEVELS}


def make_operator(config: AttentionConfig, *, dim: int = DIM, num_heads: int = HEADS) -> LocalAttention:
    """An operator in float64 whose parameters are far from zero but saturate nothing."""
    operator = build_attention(config, dim=dim, num_heads=num_heads).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter.normal_(generator=generator).mul_(0.4)
        for module in operator.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.bias.abs_().add_(0.2)  # so that no ReLU after it is shut for every pixel
            if isinstance(module, ChannelFilter):
                module.squeeze.bias.abs_().add_(0.2)  # so that its ReLU is open for every image
    return operator


def make_input(height: int = HEIGHT, width: int = WIDTH, dim: int = DIM) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(BATCH, height, width, dim, dtype=torch.float64, generator=generator)


def _make_parameters() -> list[Any]:
    """Every operator; slow are those of levels that meet in pairs in the others."""
    levels = list(OF_LEVELS.values())
    fast = [*OF_PRESETS.values(), *(levels[at] for at in choose_pairwise([astuple(level) for level in levels]))]
    return [
        pytest.param(config, id=name, marks=() if config in fast else pytest.mark.slow)
        for name, config in OPERATORS.items()
    ]


@pytest.fixture(params=_make_parameters())
def config(request: pytest.FixtureRequest) -> AttentionConfig:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def operator(config: AttentionConfig) -> LocalAttention:
    return make_operator(config)
