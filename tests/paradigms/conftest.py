"""Operators and inputs that every law is checked on."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from paradigms.attention import LocalAttention
from paradigms.config import BORDERS_WITHOUT_BIAS, PROJECTIONS, TERMS, AttentionConfig
from paradigms.facts import COMBINATIONS, NEIGHBORHOODS, NORMALIZATIONS
from paradigms.laws.specimen import (
    BATCH,
    DIM,
    HEADS,
    HEIGHT,
    VARIANTS,
    WIDTH,
    make_input,
    make_operator,
    use_small_sizes,
)
from paradigms.presets import PRESETS

from .covering import choose_pairwise

__all__ = ["BATCH", "DIM", "HEADS", "HEIGHT", "WIDTH", "make_input", "make_operator"]

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
        for border in NEIGHBORHOODS[neighborhood].borders:
            for suffix, fields in {"": {}, **VARIANTS[neighborhood]}.items():
                config = AttentionConfig(
                    parameterization=TERMS, normalization=normalization, neighborhood=neighborhood, border=border
                )
                found[f"{normalization}-{neighborhood}{suffix}-{border}"] = replace(use_small_sizes(config), **fields)
    for term, neighborhood in product(TERMS, NEIGHBORHOODS):
        found[f"{term}-{neighborhood}"] = use_small_sizes(
            AttentionConfig(parameterization=(term,), neighborhood=neighborhood)
        )
    for neighborhood in NEIGHBORHOODS:
        for border in NEIGHBORHOODS[neighborhood].borders:
            strict = AttentionConfig(parameterization=("hadamard",), neighborhood=neighborhood, border=border)
            found[f"hadamard-{neighborhood}-{border}"] = use_small_sizes(strict)
            for name, ghost in (
                GHOSTS.items() if border == NEIGHBORHOODS[neighborhood].borders[0] else [("both", GHOSTS["both"])]
            ):
                fields = {"parameterization": TERMS, "aggregation": "ghost_head", "neighborhood": neighborhood}
                config = AttentionConfig(**fields, border=border, **ghost)
                found[f"ghost-{name}-{neighborhood}-{border}"] = use_small_sizes(config)
    for border, size in product(("zero", "mask"), (None, 1, (1, 3))):
        config = AttentionConfig(
            parameterization=("hadamard_conv",),
            neighborhood="sliding_window",
            border=border,
            group_width=2,
            hadamard_size=size,
        )
        found[f"hadamard_conv-{border}-{size}"] = use_small_sizes(config)
    return {**found, **_every_filter(), **_every_projection()}


def _every_filter() -> dict[str, AttentionConfig]:
    """Each parameterization that generates filters, with each normalization and border."""
    found = {}
    for name, normalization, border in product(FILTERS, NORMALIZATIONS, ("zero", "mask", "project")):
        fields = {"normalization": normalization, "neighborhood": "sliding_window", "border": border}
        config = AttentionConfig(parameterization=(name,), kernel_size=5, **fields)
        found[f"{name}-{normalization}-{border}"] = use_small_sizes(config)
    for combine, border in product(COMBINATIONS, ("zero", "mask", "project")):
        fields = {"aggregation": "channel_filter", "combine": combine, "neighborhood": "sliding_window"}
        config = AttentionConfig(parameterization=TERMS, border=border, se_ratio=0.5, **fields)
        found[f"channel_filter-{combine}-{border}"] = use_small_sizes(config)
    return found


def _every_projection() -> dict[str, AttentionConfig]:
    """Each projection around windows, with each border that it knows."""
    found = {}
    for projections, border in product(PROJECTIONS, NEIGHBORHOODS["local_window"].borders):
        if border in BORDERS_WITHOUT_BIAS.get(projections, NEIGHBORHOODS["local_window"].borders):
            found[f"{projections}-{border}"] = use_small_sizes(AttentionConfig(projections=projections, border=border))
    return found


OF_PRESETS = {name: use_small_sizes(preset.config) for name, preset in PRESETS.items()}
OF_LEVELS = _every_level()
OPERATORS = {**OF_PRESETS, **OF_LEVELS}


def _make_parameters() -> list[Any]:
    """Every operator; slow are those of levels that meet in pairs in the others."""
    levels = list(OF_LEVELS.values())
    fast = [
        *OF_PRESETS.values(),
        *(levels[at] for at in choose_pairwise([tuple(level.to_dict().values()) for level in levels])),
    ]
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
