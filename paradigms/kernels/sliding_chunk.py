"""The backend `torch` of sliding chunks: dense products of each chunk with itself and the eight around it."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paradigms.constants import load_constants
from paradigms.functional import Aggregation, Array, Geometry, Normalization, Outside, Scores, Terms, list_taps
from paradigms.kernels.partition import (
    attend_within,
    convolve_within,
    merge,
    mix_within,
    pad_map,
    partition,
    partition_taps,
)
from paradigms.kernels.problem import Map


def _to_chunk(geometry: Geometry) -> Geometry:
    """The partition of the queries into chunks."""
    return Geometry("window", (geometry.kernel_size[0] // 3, geometry.kernel_size[1] // 3))


def _list_offsets(geometry: Geometry) -> tuple[Int[Array, "queries taps"]]:
    """The row of a position table for each query of a chunk and each key of the nine chunks around it."""
    rows, columns = _to_chunk(geometry).kernel_size
    offset = list_taps(geometry, 3 * rows, 3 * columns).offset.reshape(3 * rows, 3 * columns, -1)
    return (offset[rows : 2 * rows, columns : 2 * columns].reshape(rows * columns, -1),)


def _tap_offsets(geometry: Geometry, device: torch.device) -> Int[Tensor, "queries taps"]:
    (offset,) = load_constants(_list_offsets, geometry, device=device)
    return offset  # type: ignore[no-any-return]


def _list_valid(geometry: Geometry, height: int, width: int) -> tuple[Bool[Array, "chunks 1 queries taps"]]:
    """Which keys each query counts, chunk by chunk."""
    return (partition_taps(list_taps(geometry, height, width).valid, _to_chunk(geometry), height, width),)


def _valid_taps(
    geometry: Geometry, height: int, width: int, device: torch.device
) -> Bool[Tensor, "chunks 1 queries taps"] | None:
    """`_list_valid` as a tensor; None if every query counts all keys."""
    if geometry.border != "mask":
        return None
    (valid,) = load_constants(_list_valid, geometry, height, width, device=device)
    return valid  # type: ignore[no-any-return]


def _gather_nine(
    x: Map, geometry: Geometry, outside: Float[Tensor, "heads head_dim"] | None
) -> Float[Tensor, "batch chunks taps heads head_dim"]:
    """The pixels of each chunk and the eight around it."""
    rows, columns = _to_chunk(geometry).kernel_size
    framed = pad_map(x, (rows, columns), (rows + -x.shape[1] % rows, columns + -x.shape[2] % columns), outside)
    nine = framed.unfold(1, 3 * rows, rows).unfold(2, 3 * columns, columns)  # (B, nH, nW, heads, D, 3 rows, 3 columns)
    return nine.permute(0, 1, 2, 5, 6, 3, 4).flatten(3, 4).flatten(1, 2)


def attend(
    scores: Scores,
    v: Map,
    geometry: Geometry,
    normalization: Normalization,
    aggregation: Aggregation,
    outside: Outside,
    dropout_p: float,
) -> Map:
    """Eq. 4 of arXiv:2112.12786 over the chunks around each query's own."""
    assert isinstance(scores, Terms)
    height, width = v.shape[1:3]
    chunk = _to_chunk(geometry)
    q = None if scores.q is None else partition(scores.q, chunk, None)
    k = None if scores.k is None else _gather_nine(scores.k, geometry, outside.k)
    values = _gather_nine(v, geometry, outside.v)
    offset, valid = _tap_offsets(geometry, v.device), _valid_taps(geometry, height, width, v.device)
    out = attend_within(
        scores._replace(q=q, k=k), values, offset, valid, normalization, aggregation, dropout_p, mix_filtered=mix_within
    )
    return merge(out, chunk, height, width)


def convolve(table: Float[Tensor, "#batch heads offsets"], v: Map, geometry: Geometry, outside: Outside) -> Map:
    """Apply a static filter for each head over the chunks around each query's own."""
    values = _gather_nine(v, geometry, outside.v)
    out = convolve_within(table, values, _tap_offsets(geometry, v.device), None)
    return merge(out, _to_chunk(geometry), *v.shape[1:3])
