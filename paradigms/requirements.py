"""What an operator requires of width, heads, map and batch. Imports no torch.

`AttentionConfig` checks what holds everywhere; this module checks an operator at one place of a backbone. A plan can
therefore report errors before it builds a model.
"""

from collections.abc import Callable
from math import prod

from paradigms.config import AttentionConfig
from paradigms.facts import to_pair

MapSize = tuple[int, int]

HADAMARD_CONV_WIDTH = 3
"""With fewer channels, two thirds of them are rounded down to zero."""

NORMALIZES_PIXELS = {"involution", "batch_norm"}
"""Parameterizations and projections with batch norm over all pixels of a batch."""

NORMALIZES_IMAGES = {"dynamic_conv"}
"""Parameterizations with batch norm over the images of a batch."""


def count_ghosts(config: AttentionConfig, *, dim: int, num_heads: int) -> int:
    """The number of ghost heads that `ghost_heads` means on this width.

    Raises:
        ValueError: the number is not a multiple of the heads, or does not divide the width.
    """
    stated = config.ghost_heads
    ghosts = stated if isinstance(stated, int) else {"C": dim, "2x": 2 * num_heads}[stated]
    if ghosts % num_heads or dim % ghosts:
        raise ValueError(
            f"ghost_heads must be a multiple of the heads and divide the width, got ghost_heads {stated!r} = {ghosts}, "
            f"{num_heads} heads, width {dim}"
        )
    return ghosts


def require_width(config: AttentionConfig, *, dim: int, num_heads: int) -> None:
    """Check that an operator fits the number of channels and heads.

    Raises:
        ValueError: it does not fit; the message says what is possible.
    """
    if num_heads < 1 or dim % num_heads:
        raise ValueError(f"num_heads must divide dim, got {dim=}, {num_heads=}")
    if config.aggregation == "ghost_head":
        count_ghosts(config, dim=dim, num_heads=num_heads)
    if config.parameterization == ("hadamard_conv",) and dim < HADAMARD_CONV_WIDTH:
        raise ValueError(f"hadamard_conv needs at least {HADAMARD_CONV_WIDTH} channels, got width {dim}")


def fit_window(map_size: MapSize, window: MapSize, shift: MapSize) -> tuple[MapSize, MapSize]:
    """Limit the window to the map; there is no shift along an axis that one window covers (timm's rule)."""
    fitted = [min(size, side) for size, side in zip(window, map_size, strict=True)]
    moved = [0 if side <= size else by for side, size, by in zip(map_size, window, shift, strict=True)]
    return (fitted[0], fitted[1]), (moved[0], moved[1])


def choose_shift(config: AttentionConfig, window: MapSize, depth: int) -> MapSize:
    """The shift of the windows in the `depth`-th block of a stage: half a window in every second block, as in Swin."""
    if config.shift_size is not None:
        return to_pair(config.shift_size)
    return (window[0] // 2, window[1] // 2) if depth % 2 else (0, 0)


def require_map(config: AttentionConfig, map_size: MapSize, *, num_blocks: int) -> None:
    """Check that every query of this map counts enough taps for the levels, in all blocks of a stage.

    Raises:
        ValueError: a query counts too few taps; the message gives their number.
    """
    needed = config.normalization_facts.minimum_taps
    fewest = min(count_fewest_taps(config, map_size, depth) for depth in range(min(num_blocks, 2)))
    if fewest < needed:
        raise ValueError(
            f"{config.normalization} needs at least {needed} counted taps, but {config.neighborhood} with border "
            f"{config.outside_rule!r} leaves some queries of a map of {map_size[0]}x{map_size[1]} pixels {fewest}"
        )


def require_batch(config: AttentionConfig, map_size: MapSize, *, batch_size: int) -> None:
    """Check that batch norm has more than one number per channel, since one number has no variance.

    Raises:
        ValueError: the batch is too small to train.
    """
    levels = {*config.parameterization, config.projections}
    for normalizing, values in ((NORMALIZES_PIXELS, batch_size * prod(map_size)), (NORMALIZES_IMAGES, batch_size)):
        if values < 2 and levels & normalizing:
            raise ValueError(
                f"{' and '.join(sorted(levels & normalizing))} normalize over a batch: batch_size must be at least 2, "
                f"got {batch_size} on a map of {map_size[0]}x{map_size[1]} pixels"
            )


def count_fewest_taps(config: AttentionConfig, map_size: MapSize, depth: int) -> int:
    """The fewest taps that a query counts in the `depth`-th block of a stage; windows are limited to the map.

    Neighborhoods of plug-ins have no rule here; all of their taps are assumed to be counted.
    """
    rule = _FEWEST.get(config.neighborhood)
    return prod(rule(config, map_size, depth)) if rule is not None else config.normalization_facts.minimum_taps


def _count_in_windows(config: AttentionConfig, map_size: MapSize, depth: int) -> list[int]:
    """The fewest taps in the last window of each axis: a shift separates its pixels, and it may exceed the map."""
    window = to_pair(config.window_size)
    sizes, shifts = fit_window(map_size, window, choose_shift(config, window, depth))
    counts = []
    for length, size, shift in zip(map_size, sizes, shifts, strict=True):
        inside = (length - 1) % size + 1
        parts = [(size - shift, min(inside, size - shift)), (shift, inside - (size - shift))]
        counts.append(min(here if config.outside_rule == "mask" else whole for whole, here in parts if here > 0))
    return counts


def _count_around(length: int, size: int, dilation: int, border: str) -> int:
    """The fewest taps of a sliding window along one axis; they occur at one of the first `dilation` positions."""
    if border == "shift":
        return min(size, max(1, length // dilation))
    if border != "mask":
        return size
    reach = size // 2
    return min(
        1 + min(reach, at // dilation) + min(reach, (length - 1 - at) // dilation)
        for at in range(min(dilation, length))
    )


def _count_in_area(config: AttentionConfig, map_size: MapSize, depth: int) -> list[int]:  # noqa: ARG001 - every rule's
    axes = zip(map_size, to_pair(config.kernel_size), to_pair(config.dilation), strict=True)
    return [_count_around(length, size, dilation, config.outside_rule) for length, size, dilation in axes]


def _count_in_chunks(config: AttentionConfig, map_size: MapSize, depth: int) -> list[int]:  # noqa: ARG001 - every rule's
    counts = []
    for length, chunk in zip(map_size, to_pair(config.chunk_size), strict=True):
        if config.exact:
            counts.append(_count_around(length, 2 * chunk + 1, 1, config.outside_rule))
        elif config.outside_rule != "mask":
            counts.append(3 * chunk)
        else:
            counts.append(min(length, chunk + (length - 1) % chunk + 1))  # of the last chunk and the one before it
    return counts


_FEWEST: dict[str, Callable[[AttentionConfig, MapSize, int], list[int]]] = {
    "local_window": _count_in_windows,
    "sliding_window": _count_in_area,
    "sliding_chunk": _count_in_chunks,
}
"""The fewest taps that a query counts, by neighborhood; a test compares them with the taps of every query."""
