"""Windows by partition and dense matrix products."""

from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paradigms.functional import Aggregation, Geometry, Normalization, Outside, Scores, Terms, make_neighbors
from paradigms.kernels.case import Map
from paradigms.kernels.partition import (
    WindowKinds,
    attend_within,
    convolve_within,
    merge,
    partition,
    partition_taps,
    sort_windows,
)


@lru_cache(maxsize=64)
def _tap_offsets(geometry: Geometry, device: torch.device) -> Int[Tensor, "taps taps"]:
    """The row of a position table for each query and key of one whole window."""
    whole = Geometry("window", geometry.kernel_size)
    return make_neighbors(whole, *geometry.kernel_size, device).offset


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)
def _valid_taps(
    geometry: Geometry, height: int, width: int, device: torch.device
) -> Bool[Tensor, "windows 1 taps taps"] | None:
    """Which keys each query counts, window by window; None where all count all. Queries outside the map count all."""
    lengths = tuple(zip((height, width), geometry.kernel_size, geometry.shift, strict=True))
    moved = any(shift % length for length, _, shift in lengths)
    if not moved and (geometry.border != "mask" or not any(length % size for length, size, _ in lengths)):
        return None
    return partition_taps(make_neighbors(geometry, height, width, device).valid, geometry, height, width)


def attend(
    scores: Scores,
    v: Map,
    geometry: Geometry,
    normalization: Normalization,
    aggregation: Aggregation,
    outside: Outside,
    dropout_p: float,
) -> Map:
    """Eq. 4 of arXiv:2112.12786 in (shifted) windows."""
    assert isinstance(scores, Terms)
    height, width = v.shape[1:3]
    q = None if scores.q is None else partition(scores.q, geometry, None)
    k = None if scores.k is None else partition(scores.k, geometry, outside.k)
    values = partition(v, geometry, outside.v)
    offset, valid = _tap_offsets(geometry, v.device), _valid_taps(geometry, height, width, v.device)
    out = attend_within(scores._replace(q=q, k=k), values, offset, valid, normalization, aggregation, dropout_p)
    return merge(out, geometry, height, width)


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)
def _window_kinds(geometry: Geometry, height: int, width: int, device: torch.device) -> WindowKinds | None:
    valid = _valid_taps(geometry, height, width, device)
    return None if valid is None else sort_windows(valid)


def convolve(table: Float[Tensor, "#batch heads offsets"], v: Map, geometry: Geometry, outside: Outside) -> Map:
    """A static filter for each head, in (shifted) windows."""
    height, width = v.shape[1:3]
    kinds = _window_kinds(geometry, height, width, v.device)
    out = convolve_within(table, partition(v, geometry, outside.v), _tap_offsets(geometry, v.device), kinds)
    return merge(out, geometry, height, width)
