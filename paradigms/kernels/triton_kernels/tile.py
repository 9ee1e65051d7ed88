"""Tiling that the Triton kernels share: blocks of pixels, their taps, loads and stores.

A program computes one block of pixels of one map and head, or one offset of many maps. It computes in float64 for
float64 inputs and in float32 for all others, and rounds once, when it stores. `no_type_check` marks functions that
triton compiles and Python does not run.

An *offset* is a row of a position table; a *tap* is one of the K slots of a query. They differ only under the border
`shift`.
"""

from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from paradigms.functional import Geometry

NUM_WARPS = 4


class Strided(NamedTuple):
    """A map (batch, height, width, heads, channels) with adjacent channels, and the strides of its other axes."""

    pointer: Tensor
    batch: int
    row: int
    column: int
    head: int


class Extent(NamedTuple):
    """The size of a map."""

    batch: int
    height: int
    width: int
    heads: int


class Tile(NamedTuple):
    """The tile of a program, a compile-time constant: `block` pixels x `channels`, padded to `padded`."""

    block: int
    channels: int
    padded: int
    dtype: tl.dtype


class Window(NamedTuple):
    """The sliding window, a compile-time constant; every pair is (rows, columns)."""

    size: tuple[int, int]
    dilation: tuple[int, int]
    border: str
    span: tuple[int, int]
    offsets: int


def to_strided(x: Tensor) -> Strided:
    """Take the strides of a map; if its channels are not adjacent, it is copied first."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    return Strided(x, *x.stride()[:4])


def to_window(geometry: Geometry) -> Window:
    """The geometry as an argument of kernels."""
    return Window(geometry.kernel_size, geometry.dilation, geometry.border, geometry.offset_span, geometry.num_offsets)


def choose_tile(x: Tensor) -> Tile:
    """A tile of about 2048 numbers, sixteen for each thread of `NUM_WARPS`; both sides are powers of two."""
    channels = x.shape[-1]
    padded = triton.next_power_of_2(channels)
    dtype = tl.float64 if x.dtype == torch.float64 else tl.float32
    return Tile(min(128, max(16, 2048 // padded)), channels, padded, dtype)


def make_grid(extent: Extent, block: int) -> tuple[int]:
    """One program per block of pixels, map and head; `find_block` is the inverse."""
    return (extent.batch * extent.heads * triton.cdiv(extent.height * extent.width, block),)


@triton.jit
@no_type_check
def find_block(extent, block: tl.constexpr):
    """The map, head and pixels of this program, and which pixels exist; heads vary fastest, as in memory.

    Past the end, the last pixel is repeated, so that addresses computed from a pixel are valid.
    """
    pixels = extent.height * extent.width
    blocks = tl.cdiv(pixels, block)
    head = tl.program_id(0) % extent.heads
    rest = tl.program_id(0) // extent.heads
    pixel = rest % blocks * block + tl.arange(0, block)
    return rest // blocks, head, tl.minimum(pixel, pixels - 1), pixel < pixels


@triton.jit
@no_type_check
def find_row(extent, batch, pixel, head):
    """The row of a pixel and head in a contiguous tensor (batch, height, width, heads, ...)."""
    return (tl.cast(batch, tl.int64) * (extent.height * extent.width) + pixel) * extent.heads + head


@triton.jit
@no_type_check
def load_tile(x, batch, row, column, head, inside, tile: tl.constexpr):
    """Load pixels of a map as (pixels, channels); zeros if not `inside`, in the padding of channels, and for None."""
    if x is None:
        return tl.zeros([tile.block, tile.padded], tile.dtype)
    else:
        channel = tl.arange(0, tile.padded)
        start = tl.cast(batch, tl.int64) * x.batch + tl.cast(head, tl.int64) * x.head
        pixel = start + tl.cast(row, tl.int64) * x.row + tl.cast(column, tl.int64) * x.column
        mask = inside[:, None] & (channel < tile.channels)[None, :]
        return tl.load(x.pointer + (pixel[:, None] + channel[None, :]), mask=mask, other=0.0).to(tile.dtype)


@triton.jit
@no_type_check
def load_rows(table, row, tile: tl.constexpr):
    """Load rows of a contiguous (rows, channels); all of them must exist."""
    channel = tl.arange(0, tile.padded)
    there = table + (row[:, None] * tile.channels + channel[None, :])
    return tl.load(there, mask=(channel < tile.channels)[None, :], other=0.0).to(tile.dtype)


@triton.jit
@no_type_check
def store_rows(table, row, values, exists, tile: tl.constexpr):
    """Store rows of a contiguous (rows, channels)."""
    channel = tl.arange(0, tile.padded)
    there = table + (row[:, None] * tile.channels + channel[None, :])
    tl.store(there, values.to(table.dtype.element_ty), mask=exists[:, None] & (channel < tile.channels)[None, :])


@triton.jit
@no_type_check
def _first_key(query, length, size: tl.constexpr, dilation: tl.constexpr):
    """The first key of a clamped window and the number of keys on the axis, in the query's phase of the dilation."""
    available = (length - query % dilation + dilation - 1) // dilation
    first = tl.maximum(query // dilation - size // 2, 0)
    return tl.minimum(first, tl.maximum(available - size, 0)), available


@triton.jit
@no_type_check
def _find_key(query, tap, length, size: tl.constexpr, dilation: tl.constexpr, border: tl.constexpr):
    """Along one axis: the key of a query's tap, whether it is inside, and its offset (one number if all share it)."""
    if border == "shift":
        first, available = _first_key(query, length, size, dilation)
        key = first + tap
        return query % dilation + dilation * key, key < available, key - query // dilation + size - 1
    else:
        key = query + dilation * (tap - size // 2)
        return key, (key >= 0) & (key < length), tap + tl.zeros([1], tl.int32)


@triton.jit
@no_type_check
def find_keys(pixel, tap, extent, window: tl.constexpr):
    """The keys (row, column) at a tap of the queries, which of them are inside, and their offsets."""
    down, across = tap // window.size[1], tap % window.size[1]
    query_row, query_column = pixel // extent.width, pixel % extent.width
    row, row_inside, row_offset = _find_key(
        query_row, down, extent.height, window.size[0], window.dilation[0], window.border
    )
    column, column_inside, column_offset = _find_key(
        query_column, across, extent.width, window.size[1], window.dilation[1], window.border
    )
    return row, column, row_inside & column_inside, row_offset * window.span[1] + column_offset


@triton.jit
@no_type_check
def find_distance(offset, window: tl.constexpr):
    """The distance from a query to its key at an offset, in rows and columns of pixels."""
    down = offset // window.span[1] - window.span[0] // 2
    across = offset % window.span[1] - window.span[1] // 2
    return down * window.dilation[0], across * window.dilation[1]


@triton.jit
@no_type_check
def _sees(query, key, length, size: tl.constexpr, dilation: tl.constexpr, border: tl.constexpr):
    """Along one axis, for two positions one offset apart: whether both are inside and the query sees the key."""
    both = (query >= 0) & (query < length) & (key >= 0) & (key < length)
    if border == "shift":
        first, _ = _first_key(query, length, size, dilation)
        tap = key // dilation - first
        both = both & (tap >= 0) & (tap < size)
    return both


@triton.jit
@no_type_check
def sees(row, column, key_row, key_column, extent, window: tl.constexpr):
    """Whether queries see keys that are one offset apart from them."""
    rows = _sees(row, key_row, extent.height, window.size[0], window.dilation[0], window.border)
    columns = _sees(column, key_column, extent.width, window.size[1], window.dilation[1], window.border)
    return rows & columns
