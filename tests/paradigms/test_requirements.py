"""What an operator requires of its place is what its geometry, built with torch, shows."""

import random

import pytest

from paradigms.attention import build_attention
from paradigms.config import AttentionConfig
from paradigms.facts import NEIGHBORHOODS as FACTS
from paradigms.functional import make_neighbors
from paradigms.laws import list_configs
from paradigms.neighborhood import NEIGHBORHOODS
from paradigms.requirements import (
    choose_shift,
    count_fewest_taps,
    fit_window,
    require_batch,
    require_map,
    require_width,
)

SIZES = {
    "local_window": ("window_size", (1, 2, 3, 5, 8)),
    "sliding_window": ("kernel_size", (1, 3, 5, 9)),
    "sliding_chunk": ("chunk_size", (1, 2, 3, 5)),
}


def _draw(generator: random.Random) -> tuple[AttentionConfig, tuple[int, int], int]:
    neighborhood = generator.choice(list(SIZES))
    field, sizes = SIZES[neighborhood]

    def pair(*choices: int) -> tuple[int, int]:
        return generator.choice(choices), generator.choice(choices)

    fields = {field: pair(*sizes), "border": generator.choice(FACTS[neighborhood].borders)}
    if neighborhood == "local_window" and generator.random() < 0.5:
        fields["shift_size"] = tuple(generator.randrange(size) for size in fields["window_size"])
    if neighborhood == "sliding_window":
        fields["dilation"] = pair(1, 2, 3, 5)
    if neighborhood == "sliding_chunk":
        fields["exact"] = generator.random() < 0.5
    return AttentionConfig(neighborhood=neighborhood, **fields), pair(*range(1, 14)), generator.randrange(2)


def test_the_fewest_taps_are_those_of_the_query_that_counts_fewest() -> None:
    generator = random.Random(0)
    for _ in range(150):
        config, map_size, depth = _draw(generator)
        geometry = NEIGHBORHOODS[config.neighborhood].from_config(config).geometry
        if geometry.kind == "window":
            window, shift = fit_window(
                map_size, geometry.kernel_size, choose_shift(config, geometry.kernel_size, depth)
            )
            fitted = AttentionConfig(border=config.border, window_size=window, shift_size=shift)
            geometry = NEIGHBORHOODS["local_window"].from_config(fitted).geometry
        fewest = int(make_neighbors(geometry, *map_size).valid.sum(dim=1).min())
        assert count_fewest_taps(config, map_size, depth) == fewest, (config, map_size, depth)


@pytest.mark.parametrize(
    ("config", "map_size"),
    [
        (AttentionConfig(normalization="filter_norm", window_size=2, border="mask", shift_size=0), (5, 5)),
        (AttentionConfig(normalization="filter_norm", window_size=2), (4, 4)),
        (AttentionConfig(normalization="filter_norm"), (1, 1)),
        (AttentionConfig(normalization="filter_norm", neighborhood="sliding_window", border="shift"), (1, 1)),
        (
            AttentionConfig(normalization="filter_norm", neighborhood="sliding_window", border="mask", dilation=4),
            (4, 3),
        ),
    ],
    ids=["padded", "shifted", "one-pixel", "moved-inside", "dilated"],
)
def test_a_normalization_with_too_few_counted_taps_is_refused(
    config: AttentionConfig, map_size: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match="filter_norm needs at least 2 counted taps"):
        require_map(config, map_size, num_blocks=2)


def test_only_blocks_that_exist_are_asked() -> None:
    config = AttentionConfig(normalization="filter_norm", window_size=2)
    require_map(config, (4, 4), num_blocks=1)  # the second would be shifted


@pytest.mark.parametrize(
    ("fields", "dim", "num_heads"),
    [
        ({"aggregation": "ghost_head", "ghost_heads": 8}, 12, 3),
        ({"aggregation": "ghost_head", "ghost_heads": "2x"}, 12, 12),
        ({"parameterization": ("hadamard_conv",), "neighborhood": "sliding_window"}, 2, 1),
        ({}, 12, 5),
    ],
    ids=["ghost-heads", "ghost-heads-2x", "hadamard-conv", "heads"],
)
def test_what_the_width_has_no_room_for_is_refused_before_and_by_building(
    fields: dict[str, object], dim: int, num_heads: int
) -> None:
    config = AttentionConfig(**fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError) as planned:
        require_width(config, dim=dim, num_heads=num_heads)
    with pytest.raises(ValueError) as built:
        build_attention(config, dim=dim, num_heads=num_heads)
    assert str(planned.value) == str(built.value)


def test_batch_norm_over_one_number_is_refused() -> None:
    pixels = AttentionConfig(neighborhood="sliding_window", projections="batch_norm")
    images = AttentionConfig(neighborhood="sliding_window", parameterization=("dynamic_conv",))
    require_batch(pixels, (1, 2), batch_size=1)
    require_batch(images, (1, 1), batch_size=2)
    for config, map_size in ((pixels, (1, 1)), (images, (7, 7))):
        with pytest.raises(ValueError, match="batch_size must be at least 2, got 1"):
            require_batch(config, map_size, batch_size=1)


def test_the_laws_check_a_level_whose_default_sizes_are_impossible() -> None:
    configs = list_configs("parameterization", "outlook")
    assert {config.outside_rule for config in configs.values()} == {"zero", "mask", "project"}
