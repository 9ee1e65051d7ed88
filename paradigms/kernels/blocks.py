"""Splits a map into blocks of queries, each with the halo of keys that its taps reach.

Tap o of query a of a block is the key a + o of its halo. The dense product of all queries of a block with all keys of
its halo therefore contains the taps as a strided view, `skew`: the address is affine in (a_y, a_x, o_y, o_x).
"""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from paradigms.kernels.problem import Map, lse_dtype

Blocks = Float[Tensor, "heads batch rows columns queries channels"]
Keys = Float[Tensor, "heads batch padded_height padded_width channels"]
Rows = Float[Tensor, "part_heads part_batch part_height padded_width channels"]
Halos = Float[Tensor, "blocks keys channels"]

BLOCK_SIZES = 7, 8
"""Rows or columns of a block: large enough for dense products, small enough that most products are taps."""


class Cut(NamedTuple):
    """How a map is cut into blocks; every pair is (rows, columns)."""

    size: tuple[int, int]
    kernel: tuple[int, int]
    block: tuple[int, int]

    @property
    def grid(self) -> tuple[int, int]:
        """Number of blocks along each axis."""
        return -(-self.size[0] // self.block[0]), -(-self.size[1] // self.block[1])

    @property
    def halo(self) -> tuple[int, int]:
        """Number of keys in the halo of one block, along each axis."""
        return self.block[0] + self.kernel[0] - 1, self.block[1] + self.kernel[1] - 1

    @property
    def reach(self) -> tuple[int, int]:
        """Number of blocks that one halo overlaps, along each axis."""
        return -(-self.halo[0] // self.block[0]), -(-self.halo[1] // self.block[1])

    @property
    def num_queries(self) -> int:
        """Queries of one block."""
        return self.block[0] * self.block[1]

    @property
    def num_keys(self) -> int:
        """Keys of one halo."""
        return self.halo[0] * self.halo[1]

    @property
    def num_taps(self) -> int:
        """Taps of one query."""
        return self.kernel[0] * self.kernel[1]


class Part(NamedTuple):
    """Blocks that are computed together, as slices of (heads, batch, rows of blocks)."""

    heads: slice
    batch: slice
    rows: slice


def cut_map(size: tuple[int, int], kernel: tuple[int, int]) -> Cut:
    """Choose the block size that needs the least padding; a map smaller than a block is one block."""
    rows, columns = (min(length, min(BLOCK_SIZES, key=lambda block: -length % block)) for length in size)
    return Cut(size, kernel, (rows, columns))


def cut_parts(cut: Cut, num_heads: int, batch: int, num_blocks: int) -> Iterator[Part]:
    """Split the blocks into parts of at most `num_blocks`, but at least one row of blocks.

    A part is several heads, several images of one head, or several rows of one image.
    """
    counts = num_heads, batch, cut.grid[0]
    blocks = batch * cut.grid[0] * cut.grid[1], cut.grid[0] * cut.grid[1], cut.grid[1]
    steps = [max(1, num_blocks // max(1, each)) for each in blocks]
    starts = (range(0, count, step) for count, step in zip(counts, steps, strict=True))
    for corner in product(*starts):
        ends = (min(start + step, count) for start, step, count in zip(corner, steps, counts, strict=True))
        yield Part(*map(slice, corner, ends))


def to_blocks(x: Map, cut: Cut, filler: float = 0.0) -> Blocks:
    """Split a map into blocks; the last blocks are padded with `filler`."""
    height, width = (count * size for count, size in zip(cut.grid, cut.block, strict=True))
    if (height, width) != cut.size:
        padded = x.new_full((len(x), height, width, *x.shape[3:]), filler)
        padded[:, : cut.size[0], : cut.size[1]] = x
        x = padded
    x = x.unflatten(2, (-1, cut.block[1])).unflatten(
        1, (-1, cut.block[0])
    )  # (B, rows, down, columns, across, heads, C)
    x = x.permute(5, 0, 1, 3, 2, 4, 6).to(lse_dtype(x))
    return x.contiguous().flatten(4, 5)


def write_blocks(target: Map, blocks: Blocks, cut: Cut) -> None:
    """The inverse of `to_blocks`: copy blocks into the map `target`, without the padding."""
    x = blocks.unflatten(4, cut.block).permute(1, 2, 4, 3, 5, 0, 6)  # (B, rows, down, columns, across, heads, C)
    target.copy_(x.flatten(3, 4).flatten(1, 2)[:, : cut.size[0], : cut.size[1]])


def _inside(keys: Keys, cut: Cut) -> Float[Tensor, "heads batch height width channels"]:
    top, left = cut.kernel[0] // 2, cut.kernel[1] // 2
    return keys[:, :, top : top + cut.size[0], left : left + cut.size[1]]


def to_keys(x: Map, cut: Cut) -> Keys:
    """Pad a map with zeros, so that it contains every halo and is a whole number of blocks along each axis."""
    lengths = [(count + reach - 1) * size for count, reach, size in zip(cut.grid, cut.reach, cut.block, strict=True)]
    keys = x.new_zeros(x.shape[3], x.shape[0], *lengths, x.shape[4], dtype=lse_dtype(x))
    _inside(keys, cut).copy_(x.permute(3, 0, 1, 2, 4))
    return keys


def write_keys(target: Map, keys: Keys, cut: Cut) -> None:
    """The inverse of `to_keys`: copy keys into the map `target`, without the padding."""
    target.copy_(_inside(keys, cut).permute(1, 2, 3, 0, 4))


def take_rows(keys: Keys, cut: Cut, part: Part) -> Rows:
    """The rows of the padded map that the halos of a part cover, as a view."""
    down = cut.block[0]
    return keys[part.heads, part.batch, part.rows.start * down : (part.rows.stop + cut.reach[0] - 1) * down]


def gather_halos(keys: Keys, cut: Cut, part: Part) -> Halos:
    """Copy the halo of each block of a part."""
    halos = keys.unfold(2, cut.halo[0], cut.block[0]).unfold(3, cut.halo[1], cut.block[1])
    halos = halos[*part, : cut.grid[1]].permute(0, 1, 2, 3, 5, 6, 4)  # (heads, B, rows, columns, *halo, channels)
    return halos.flatten(4, 5).flatten(0, 3)


def add_halos(keys: Keys, halos: Halos, cut: Cut, part: Part) -> None:
    """Add one vector for each key of each halo to the padded map. The order of the sums is fixed.

    The halos of different blocks overlap, but pieces of one block size at the same place of every halo do not.
    """
    (down, across), columns = cut.block, cut.grid[1]
    blocks = keys.unflatten(3, (-1, across)).unflatten(2, (-1, down))[part.heads, part.batch]
    added = halos.view(*blocks.shape[:2], -1, columns, *cut.halo, halos.shape[-1]).transpose(3, 4)
    for y, x in product(range(cut.reach[0]), range(cut.reach[1])):
        piece = added[:, :, :, y * down : (y + 1) * down, :, x * across : (x + 1) * across]
        rows = slice(part.rows.start + y, part.rows.stop + y)
        blocks[:, :, rows, : piece.shape[3], x : columns + x, : piece.shape[5]] += piece


def skew(dense: Float[Tensor, "blocks queries keys"], cut: Cut) -> Float[Tensor, "blocks down across *kernel"]:
    """The taps of each query in the dense product of a block with its halo: a view of the contiguous `dense`."""
    down = cut.block[1] * cut.num_keys + cut.halo[1]
    strides = cut.num_queries * cut.num_keys, down, cut.num_keys + 1, cut.halo[1], 1
    return dense.as_strided((len(dense), *cut.block, *cut.kernel), strides)


def skew_rows(
    by_key: Float[Tensor, "heads batch height width taps"], cut: Cut
) -> Float[Tensor, "heads batch rows columns down across *kernel"]:
    """Reorder values of (key, tap) to (query, tap): a view in which query i at tap o reads the key i + o.

    `by_key` has a value for each key of `take_rows` and each tap.
    """
    heads, batch, y, x, tap = by_key.stride()
    (down, across), (_, kernel_columns) = cut.block, cut.kernel
    strides = heads, batch, down * y, across * x, y, x, y + kernel_columns * tap, x + tap
    rows = by_key.shape[2] // down - cut.reach[0] + 1
    return by_key.as_strided((*by_key.shape[:2], rows, cut.grid[1], *cut.block, *cut.kernel), strides)
