"""Partitions a map into windows and computes attention within them by dense products."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import dropout, pad

from paradigms.functional import Aggregation, Array, Geometry, Normalization, Terms, take_rows
from paradigms.kernels.logits import Layout, join_terms
from paradigms.kernels.problem import Map


class WindowKinds(NamedTuple):
    """Windows sorted by kind: queries of windows of one kind count the same taps."""

    valid: Bool[Tensor, "kinds queries taps"]
    sizes: tuple[int, ...]  # number of windows of each kind
    order: Int[Tensor, "windows"]  # windows of the first kind, of the second, ...
    place: Int[Tensor, "windows"]  # position of each window in `order`


def sort_windows(
    valid: Bool[Array, "windows 1 queries taps"],
) -> tuple[Bool[Array, "kinds queries taps"], tuple[int, ...], Int[Array, "windows"], Int[Array, "windows"]]:
    """The tensors of `WindowKinds`. There are few kinds: only windows at the ends of the map differ from the others."""
    kinds, kind_of = np.unique(valid[:, 0], axis=0, return_inverse=True)
    order = kind_of.argsort(kind="stable")
    return kinds, tuple(np.bincount(kind_of).tolist()), order, order.argsort()


MixFiltered = Callable[[Tensor, Tensor, Aggregation, Tensor], Tensor]
"""Weights, values, the filter, and the row of the filter for each query and tap."""

LAYOUT = Layout(query="bwihd", key="bwjhd", table="hijd", logits="bwhij")


def pad_map(
    x: Shaped[Tensor, "batch height width heads channels"],
    before: tuple[int, int],
    after: tuple[int, int],
    outside: Shaped[Tensor, "heads channels"] | None,
) -> Shaped[Tensor, "batch padded_height padded_width heads channels"]:
    """Pad a map with rows and columns of `outside` (None: zeros)."""
    frame = before[1], after[1], before[0], after[0]
    if not any(frame):
        return x
    padded = pad(x, (0, 0, 0, 0, *frame))
    if outside is None:
        return padded
    inside = pad(torch.ones(x.shape[1:3], dtype=torch.bool, device=x.device), frame)[..., None, None]
    return torch.where(inside, padded, outside.to(x.dtype))


def partition(
    x: Shaped[Tensor, "batch height width heads channels"],
    geometry: Geometry,
    outside: Shaped[Tensor, "heads channels"] | None,
) -> Shaped[Tensor, "batch windows taps heads channels"]:
    """Shift the map cyclically, pad it at its end, and cut it into windows."""
    rows, columns = geometry.kernel_size
    if any(geometry.shift):
        x = x.roll((-geometry.shift[0], -geometry.shift[1]), dims=(1, 2))
    x = pad_map(x, (0, 0), (-x.shape[1] % rows, -x.shape[2] % columns), outside)
    x = x.unflatten(2, (-1, columns)).unflatten(1, (-1, rows))  # (B, nH, rows, nW, columns, heads, D)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def partition_taps(
    valid: Bool[Array, "pixels taps"], geometry: Geometry, height: int, width: int
) -> Bool[Array, "windows 1 queries taps"]:
    """The taps that the queries of each window count; queries in the padding count all taps."""
    (rows, columns), (down, across) = geometry.kernel_size, geometry.shift
    moved = np.roll(valid.reshape(height, width, -1), (-down, -across), axis=(0, 1))
    filled = np.pad(moved, ((0, -height % rows), (0, -width % columns), (0, 0)), constant_values=True)
    windows = filled.reshape(-(-height // rows), rows, -(-width // columns), columns, valid.shape[-1])
    return windows.swapaxes(1, 2).reshape(-1, 1, rows * columns, valid.shape[-1])


def merge(x: Float[Tensor, "batch windows taps heads head_dim"], geometry: Geometry, height: int, width: int) -> Map:
    """The inverse of `partition`; the padding is removed."""
    rows, columns = geometry.kernel_size
    down, across = -(-height // rows), -(-width // columns)
    x = x.unflatten(2, (rows, columns)).unflatten(1, (down, across)).transpose(2, 3)
    x = x.flatten(3, 4).flatten(1, 2)[:, :height, :width]
    return x.roll(geometry.shift, dims=(1, 2)) if any(geometry.shift) else x


def attend_within(  # noqa: PLR0913 - the parts of Eq. 4 and how filters are applied
    terms: Terms,
    values: Float[Tensor, "batch windows taps heads head_dim"],
    offset: Int[Tensor, "queries taps"],
    valid: Bool[Tensor, "windows 1 queries taps"] | None,
    normalization: Normalization,
    aggregation: Aggregation,
    dropout_p: float,
    *,
    mix_filtered: MixFiltered,
) -> Float[Tensor, "batch windows queries heads head_dim"]:
    """Eq. 4 of arXiv:2112.12786 if all queries of a window have the same taps.

    Args:
        terms: queries and keys in the layout of `values`; tables as the parameterization returns them.
        values: the values at the taps of each window.
        offset: the row of a position table for each query and tap of a window.
        valid: the taps that are counted; None for all.
        normalization: logits to weights.
        aggregation: the weighted sum, or weights times a filter.
        dropout_p: probability of dropping a weight.
        mix_filtered: `mix_within`, or a function that computes the same.
    """
    rk, rq, rb = (None if x is None else take_rows(x, offset) for x in (terms.rk, terms.rq, terms.rb))
    logits = join_terms(terms._replace(rk=rk, rq=rq, rb=None if rb is None else rb[None, None]), LAYOUT)
    weights = dropout(normalization(logits, valid).expand(*values.shape[:2], -1, -1, -1), dropout_p)
    if aggregation.mul is None:
        return torch.einsum("bwhij,bwjhd->bwihd", weights, values)
    return mix_filtered(weights, values, aggregation, offset)


def mix_within(
    weights: Float[Tensor, "batch windows #heads queries taps"],
    values: Float[Tensor, "batch windows taps heads head_dim"],
    aggregation: Aggregation,
    offset: Int[Tensor, "queries taps"],
) -> Float[Tensor, "batch windows queries heads head_dim"]:
    """Apply weights times a filter to values."""
    assert aggregation.mul is not None
    filters = aggregation.mul.index_select(-1, offset.flatten()).unflatten(-1, offset.shape)
    heads, ghosts = weights.shape[2], filters.shape[1]
    filtered = weights.repeat_interleave(ghosts // heads, dim=2) * filters[:, None]
    channels = values.flatten(-2).unflatten(-1, (ghosts, -1))
    return torch.einsum("bwgij,bwjgc->bwigc", filtered, channels).flatten(-2).unflatten(-1, (heads, -1))  # type: ignore[no-any-return]


def convolve_within(
    table: Float[Tensor, "#batch heads offsets"],
    values: Float[Tensor, "batch windows taps heads head_dim"],
    offset: Int[Tensor, "queries taps"],
    kinds: WindowKinds | None,
) -> Float[Tensor, "batch windows queries heads head_dim"]:
    """Apply a static filter for each head: one matrix for all windows of a kind (None: every tap is counted)."""
    weights = table.index_select(-1, offset.flatten()).unflatten(-1, offset.shape)
    if kinds is None:
        return _mix_alike(weights, values)
    groups = values.index_select(1, kinds.order).split(list(kinds.sizes), dim=1)
    mixed = [_mix_alike(weights * valid, group) for valid, group in zip(kinds.valid, groups, strict=True)]
    return torch.cat(mixed, dim=1).index_select(1, kinds.place)


def _mix_alike(
    weights: Float[Tensor, "#batch heads queries taps"], values: Float[Tensor, "batch windows taps heads head_dim"]
) -> Float[Tensor, "batch windows queries heads head_dim"]:
    """Apply weights that all windows share, and all images if there is one set; the weights are not copied."""
    if len(weights) == 1:
        return torch.einsum("hij,bwjhd->bwihd", weights[0], values)
    return torch.einsum("bhij,bwjhd->bwihd", weights, values)
