"""The backend `torch` of local windows: partition and dense matrix products."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paradigms.constants import load_constants
from paradigms.functional import (
    Aggregation,
    Array,
    Geometry,
    Normalization,
    Outside,
    Scores,
    Terms,
    list_taps,
    make_neighbors,
)
from paradigms.kernels import moving
from paradigms.kernels.partition import (
    MixFiltered,
    WindowKinds,
    attend_within,
    convolve_within,
    merge,
    mix_within,
    partition,
    partition_taps,
    sort_windows,
)
from paradigms.kernels.problem import Map


def _tap_offsets(geometry: Geometry, device: torch.device) -> Int[Tensor, "taps taps"]:
    """The row of a position table for each query and key of one whole window."""
    whole = Geometry("window", geometry.kernel_size)
    return make_neighbors(whole, *geometry.kernel_size, device).offset


def _counts_all(geometry: Geometry, height: int, width: int) -> bool:
    """Whether every query counts its whole window."""
    lengths = tuple(zip((height, width), geometry.kernel_size, geometry.shift, strict=True))
    moved = any(shift % length for length, _, shift in lengths)
    return not moved and (geometry.border != "mask" or not any(length % size for length, size, _ in lengths))


def _list_valid(geometry: Geometry, height: int, width: int) -> tuple[Bool[Array, "windows 1 taps taps"]]:
    """Which keys each query counts, window by window. Queries outside the map count all."""
    return (partition_taps(list_taps(geometry, height, width).valid, geometry, height, width),)


def _valid_taps(
    geometry: Geometry, height: int, width: int, device: torch.device
) -> Bool[Tensor, "windows 1 taps taps"] | None:
    """`_list_valid` as a tensor; None if every query counts all keys."""
    if _counts_all(geometry, height, width):
        return None
    (valid,) = load_constants(_list_valid, geometry, height, width, device=device)
    return valid  # type: ignore[no-any-return]


def attend(  # noqa: PLR0913 - the seam's arguments and how filters are applied
    scores: Scores,
    v: Map,
    geometry: Geometry,
    normalization: Normalization,
    aggregation: Aggregation,
    outside: Outside,
    dropout_p: float,
    *,
    mix_filtered: MixFiltered = mix_within,
) -> Map:
    """Eq. 4 of arXiv:2112.12786 in (shifted) windows."""
    assert isinstance(scores, Terms)
    height, width = v.shape[1:3]
    q = None if scores.q is None else partition(scores.q, geometry, None)
    k = None if scores.k is None else partition(scores.k, geometry, outside.k)
    values = partition(v, geometry, outside.v)
    offset, valid = _tap_offsets(geometry, v.device), _valid_taps(geometry, height, width, v.device)
    out = attend_within(
        scores._replace(q=q, k=k),
        values,
        offset,
        valid,
        normalization,
        aggregation,
        dropout_p,
        mix_filtered=mix_filtered,
    )
    return merge(out, geometry, height, width)


def attend_filtered(
    scores: Scores,
    v: Map,
    geometry: Geometry,
    normalization: Normalization,
    aggregation: Aggregation,
    outside: Outside,
    dropout_p: float,
) -> Map:
    """The same for weights times a filter, which compiled kernels apply to the values."""

    def mix(weights: Tensor, values: Tensor, aggregation: Aggregation, _: Tensor) -> Tensor:
        return moving.mix_windows(weights, values, aggregation, geometry.kernel_size)

    return attend(scores, v, geometry, normalization, aggregation, outside, dropout_p, mix_filtered=mix)


def _list_kinds(geometry: Geometry, height: int, width: int) -> tuple[Any, ...]:
    return sort_windows(*_list_valid(geometry, height, width))


def _window_kinds(geometry: Geometry, height: int, width: int, device: torch.device) -> WindowKinds | None:
    """The windows by the taps that their queries count; None if every query counts its whole window."""
    if _counts_all(geometry, height, width):
        return None
    return WindowKinds(*load_constants(_list_kinds, geometry, height, width, device=device))


def convolve(table: Float[Tensor, "#batch heads offsets"], v: Map, geometry: Geometry, outside: Outside) -> Map:
    """A static filter for each head, in (shifted) windows."""
    height, width = v.shape[1:3]
    kinds = _window_kinds(geometry, height, width, v.device)
    out = convolve_within(table, partition(v, geometry, outside.v), _tap_offsets(geometry, v.device), kinds)
    return merge(out, geometry, height, width)
