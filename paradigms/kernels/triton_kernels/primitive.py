"""`dot`, `mix` and `reverse` in Triton: what lies outside the map is zero."""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from paradigms.functional import Geometry
from paradigms.kernels.triton_kernels.tile import (
    NUM_WARPS,
    Extent,
    Tile,
    Window,
    choose_tile,
    find_block,
    find_keys,
    find_row,
    load_tile,
    make_grid,
    store_rows,
    to_strided,
    to_window,
)


@triton.jit
@no_type_check
def dot_taps(a, b, out, extent, window: tl.constexpr, tile: tl.constexpr):
    """Each query with the keys of its taps; a tap outside gives zero, as its key is loaded as zeros."""
    batch, head, pixel, exists = find_block(extent, tile.block)
    left = load_tile(a, batch, pixel // extent.width, pixel % extent.width, head, exists, tile)
    here = find_row(extent, batch, pixel, head) * (window.size[0] * window.size[1])
    for tap in range(window.size[0] * window.size[1]):
        row, column, inside, _ = find_keys(pixel, tap, extent, window)
        products = left * load_tile(b, batch, row, column, head, inside, tile)
        tl.store(out + here + tap, tl.sum(products, axis=1).to(out.dtype.element_ty), mask=exists)


@triton.jit
@no_type_check
def mix_taps(weights, v, out, extent, window: tl.constexpr, tile: tl.constexpr):
    """The sum of what each query's taps see, weighted."""
    batch, head, pixel, exists = find_block(extent, tile.block)
    start = tl.cast(batch, tl.int64) * weights.batch + tl.cast(head, tl.int64) * weights.head
    start += tl.cast(pixel // extent.width, tl.int64) * weights.row
    start += tl.cast(pixel % extent.width, tl.int64) * weights.column
    mixed = tl.zeros([tile.block, tile.padded], tile.dtype)
    for tap in range(window.size[0] * window.size[1]):
        row, column, inside, _ = find_keys(pixel, tap, extent, window)
        weight = tl.load(weights.pointer + start + tap, mask=exists, other=0.0).to(tile.dtype)
        mixed += weight[:, None] * load_tile(v, batch, row, column, head, inside, tile)
    store_rows(out, find_row(extent, batch, pixel, head), mixed, exists, tile)


@triton.jit
@no_type_check
def reverse_taps(weights, out, extent, window: tl.constexpr, block: tl.constexpr):
    """Each pixel takes, tap by tap, what the pixel there holds for the opposite tap."""
    batch, head, pixel, exists = find_block(extent, block)
    here = find_row(extent, batch, pixel, head) * (window.size[0] * window.size[1])
    start = tl.cast(batch, tl.int64) * weights.batch + tl.cast(head, tl.int64) * weights.head
    for tap in range(window.size[0] * window.size[1]):
        row, column, inside, _ = find_keys(pixel, tap, extent, window)
        there = start + tl.cast(row, tl.int64) * weights.row + tl.cast(column, tl.int64) * weights.column
        opposite = weights.pointer + there + (window.size[0] * window.size[1] - 1 - tap)
        tl.store(out + here + tap, tl.load(opposite, mask=inside & exists, other=0.0), mask=exists)


def _plan(x: Tensor, geometry: Geometry) -> tuple[Extent, Window, Tile, tuple[int]]:
    extent, tile = Extent(*x.shape[:4]), choose_tile(x)
    return extent, to_window(geometry), tile, make_grid(extent, tile.block)


def dot(a: Tensor, b: Tensor, geometry: Geometry) -> Tensor:
    """(batch, height, width, heads, head_dim) twice to (batch, height, width, heads, taps)."""
    extent, window, tile, grid = _plan(a, geometry)
    out = torch.empty(*a.shape[:-1], geometry.num_taps, dtype=a.dtype, device=a.device)
    with torch.cuda.device_of(a):
        dot_taps[grid](to_strided(a), to_strided(b), out, extent, window, tile, num_warps=NUM_WARPS)
    return out


def mix(weights: Tensor, v: Tensor, geometry: Geometry) -> Tensor:
    """(batch, height, width, heads, taps) and (batch, height, width, heads, head_dim) to the latter."""
    extent, window, tile, grid = _plan(v, geometry)
    out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    with torch.cuda.device_of(v):
        mix_taps[grid](to_strided(weights), to_strided(v), out, extent, window, tile, num_warps=NUM_WARPS)
    return out


def reverse(weights: Tensor, geometry: Geometry) -> Tensor:
    """(batch, height, width, heads, taps) to the same."""
    extent, window, _, _ = _plan(weights, geometry)
    out = torch.empty(weights.shape, dtype=weights.dtype, device=weights.device)
    block = 32 * NUM_WARPS
    with torch.cuda.device_of(weights):
        reverse_taps[make_grid(extent, block)](to_strided(weights), out, extent, window, block, num_warps=NUM_WARPS)
    return out
