"""`dot`, `mix`, `correlate` and `reverse` in Triton; taps outside the map are zero."""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from paradigms.functional import Geometry
from paradigms.kernels.triton_kernels.tile import (
    NUM_WARPS,
    Extent,
    Strided,
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
def load_filter(filters, batch, tap, head, tile: tl.constexpr):
    """The filter of each channel at a tap; 1 without filters."""
    if filters is None:
        return tl.full([tile.padded], 1.0, tile.dtype)
    else:
        channel = tl.arange(0, tile.padded)
        start = tl.cast(batch, tl.int64) * filters.batch + tl.cast(head, tl.int64) * filters.head
        there = filters.pointer + start + tl.cast(tap, tl.int64) * filters.row + channel
        return tl.load(there, mask=channel < tile.channels, other=0.0).to(tile.dtype)


@triton.jit
@no_type_check
def load_weights(weights, batch, pixel, head, tap, exists, extent, tile: tl.constexpr):
    """The weights of the queries at a tap."""
    start = tl.cast(batch, tl.int64) * weights.batch + tl.cast(head, tl.int64) * weights.head
    start += tl.cast(pixel // extent.width, tl.int64) * weights.row
    start += tl.cast(pixel % extent.width, tl.int64) * weights.column
    return tl.load(weights.pointer + start + tap, mask=exists, other=0.0).to(tile.dtype)


@triton.jit
@no_type_check
def dot_taps(a, b, filters, out, extent, window: tl.constexpr, tile: tl.constexpr):
    """Dot products of each query with the keys of its taps; keys outside the map are loaded as zeros."""
    batch, head, pixel, exists = find_block(extent, tile.block)
    left = load_tile(a, batch, pixel // extent.width, pixel % extent.width, head, exists, tile)
    here = find_row(extent, batch, pixel, head) * (window.size[0] * window.size[1])
    for tap in range(window.size[0] * window.size[1]):
        row, column, inside, _ = find_keys(pixel, tap, extent, window)
        products = left * load_filter(filters, batch, tap, head, tile)[None, :]
        products *= load_tile(b, batch, row, column, head, inside, tile)
        tl.store(out + here + tap, tl.sum(products, axis=1).to(out.dtype.element_ty), mask=exists)


@triton.jit
@no_type_check
def mix_taps(weights, v, filters, out, extent, window: tl.constexpr, tile: tl.constexpr):
    """The weighted sum over the taps of each query."""
    batch, head, pixel, exists = find_block(extent, tile.block)
    mixed = tl.zeros([tile.block, tile.padded], tile.dtype)
    for tap in range(window.size[0] * window.size[1]):
        row, column, inside, _ = find_keys(pixel, tap, extent, window)
        weight = load_weights(weights, batch, pixel, head, tap, exists, extent, tile)
        seen = load_tile(v, batch, row, column, head, inside, tile)
        mixed += weight[:, None] * (seen * load_filter(filters, batch, tap, head, tile)[None, :])
    store_rows(out, find_row(extent, batch, pixel, head), mixed, exists, tile)


@triton.jit
@no_type_check
def correlate_taps(weights, a, b, out, extent, window: tl.constexpr, tile: tl.constexpr):
    """The sum over all pixels, block by block; one program per tap, map and head."""
    taps = window.size[0] * window.size[1]
    tap, head = tl.program_id(0) % taps, tl.program_id(0) // taps % extent.heads
    batch, pixels = tl.program_id(0) // taps // extent.heads, extent.height * extent.width
    total = tl.zeros([tile.padded], tile.dtype)
    for start in range(0, pixels, tile.block):
        pixel = start + tl.arange(0, tile.block)
        exists, pixel = pixel < pixels, tl.minimum(pixel, pixels - 1)
        row, column, inside, _ = find_keys(pixel, tap, extent, window)
        weight = load_weights(weights, batch, pixel, head, tap, exists, extent, tile)
        left = load_tile(a, batch, pixel // extent.width, pixel % extent.width, head, exists, tile)
        total += tl.sum(weight[:, None] * left * load_tile(b, batch, row, column, head, inside, tile), axis=0)
    channel = tl.arange(0, tile.padded)
    there = out + tl.cast(tl.program_id(0), tl.int64) * tile.channels + channel
    tl.store(there, total.to(out.dtype.element_ty), mask=channel < tile.channels)


@triton.jit
@no_type_check
def reverse_taps(weights, out, extent, window: tl.constexpr, block: tl.constexpr):
    """For each pixel and tap, copy the weight that the pixel at this tap has for the opposite tap."""
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


def _to_map(filters: Tensor | None) -> Strided | None:
    """View filters (batch, heads, taps, head_dim) as a map with one row per tap and one column, as programs do."""
    return None if filters is None else to_strided(filters.transpose(1, 2)[:, :, None])


def dot(a: Tensor, b: Tensor, filters: Tensor | None, geometry: Geometry) -> Tensor:
    """Two maps (batch, height, width, heads, head_dim) to (batch, height, width, heads, taps)."""
    extent, window, tile, grid = _plan(a, geometry)
    out = torch.empty(*a.shape[:-1], geometry.num_taps, dtype=a.dtype, device=a.device)
    maps = to_strided(a), to_strided(b), _to_map(filters)
    with torch.cuda.device_of(a):
        dot_taps[grid](*maps, out, extent, window, tile, num_warps=NUM_WARPS)
    return out


def mix(weights: Tensor, v: Tensor, filters: Tensor | None, geometry: Geometry) -> Tensor:
    """(batch, height, width, heads, taps) and (batch, height, width, heads, head_dim) to the latter."""
    extent, window, tile, grid = _plan(v, geometry)
    out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    maps = to_strided(weights), to_strided(v), _to_map(filters)
    with torch.cuda.device_of(v):
        mix_taps[grid](*maps, out, extent, window, tile, num_warps=NUM_WARPS)
    return out


def correlate(weights: Tensor, a: Tensor, b: Tensor, geometry: Geometry) -> Tensor:
    """The gradient of the filters, (batch, heads, taps, head_dim)."""
    extent, window, tile, _ = _plan(a, geometry)
    out = torch.empty(len(a), a.shape[3], geometry.num_taps, a.shape[4], dtype=a.dtype, device=a.device)
    maps = to_strided(weights), to_strided(a), to_strided(b)
    with torch.cuda.device_of(a):
        correlate_taps[(out[..., 0].numel(),)](*maps, out, extent, window, tile, num_warps=NUM_WARPS)
    return out


def reverse(weights: Tensor, geometry: Geometry) -> Tensor:
    """(batch, height, width, heads, taps) to the same."""
    extent, window, _, _ = _plan(weights, geometry)
    out = torch.empty(weights.shape, dtype=weights.dtype, device=weights.device)
    block = 32 * NUM_WARPS
    with torch.cuda.device_of(weights):
        reverse_taps[make_grid(extent, block)](to_strided(weights), out, extent, window, block, num_warps=NUM_WARPS)
    return out
