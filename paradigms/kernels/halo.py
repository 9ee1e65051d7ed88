"""Fused softmax attention over sliding windows as dense products of blocks.

The map is cut into blocks of queries, each with its halo: the keys that its taps reach. A batched product q·k of a block
holds more pairs than there are taps, but at the speed of dense products. Tap o of query a is the key at a + o of the
halo, so the taps of the product are a strided view, `_skew`: its entries are affine in (a_y, a_x, o_y, o_x). Logits are
read and weights written through it, and so are the products r^q·k of all keys of the map.

Neither the blocks' products nor the weights are ever held for the whole map, but for the blocks of one part at a time.
"""

import math
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from paradigms.functional import Geometry, make_neighbors
from paradigms.kernels.case import Case, Map, Operands, PerQuery, lse_dtype

Blocks = Float[Tensor, "heads batch rows columns queries channels"]
Keys = Float[Tensor, "heads batch padded_height padded_width head_dim"]
Taps = Float[Tensor, "heads batch rows columns queries taps"]
Part = tuple[slice, slice, slice]

PART_BYTES = {"cpu": 2**20}
PART_BYTES_ELSEWHERE = 2**28
BLOCK_SIZES = (7, 8)


class _Cut(NamedTuple):
    """How a map is cut; sizes are (rows, columns)."""

    size: tuple[int, int]
    kernel: tuple[int, int]
    block: tuple[int, int]

    @property
    def grid(self) -> tuple[int, int]:
        """Blocks along each axis."""
        return -(-self.size[0] // self.block[0]), -(-self.size[1] // self.block[1])

    @property
    def halo(self) -> tuple[int, int]:
        """Keys of one block along each axis."""
        return self.block[0] + self.kernel[0] - 1, self.block[1] + self.kernel[1] - 1

    @property
    def reach(self) -> tuple[int, int]:
        """Blocks that one halo touches along each axis."""
        return -(-self.halo[0] // self.block[0]), -(-self.halo[1] // self.block[1])

    @property
    def queries(self) -> int:
        """In one block."""
        return self.block[0] * self.block[1]

    @property
    def taps(self) -> int:
        """Of one query."""
        return self.kernel[0] * self.kernel[1]


def _choose_block(length: int) -> int:
    """The size that fills the map up least; a smaller map is one block."""
    if length < BLOCK_SIZES[0]:
        return max(length, 1)
    return min(BLOCK_SIZES, key=lambda size: -length % size)


def _make_cut(geometry: Geometry, height: int, width: int) -> _Cut:
    return _Cut((height, width), geometry.offset_span, (_choose_block(height), _choose_block(width)))


def _to_blocks(x: Map, cut: _Cut, filler: float = 0.0) -> Blocks:
    """The map's queries, block by block; what fills the last blocks up is `filler`."""
    batch, height, width, heads, channels = x.shape
    (rows, columns), (down, across) = cut.grid, cut.block
    blocks = x.new_empty(heads, batch, rows, columns, down, across, channels, dtype=lse_dtype(x))
    whole = blocks.permute(1, 2, 4, 3, 5, 0, 6)  # (B, rows, down, columns, across, heads, channels)
    if (rows * down, columns * across) != (height, width):
        padded = x.new_full((batch, rows * down, columns * across, heads, channels), filler)
        padded[:, :height, :width] = x
        x = padded
    whole.copy_(x.view(whole.shape) if x.is_contiguous() else x.unflatten(2, (columns, across)).unflatten(1, (rows, down)))
    return blocks.flatten(4, 5)


def _from_blocks(blocks: Blocks, cut: _Cut, dtype: torch.dtype) -> Map:
    whole = blocks.unflatten(4, cut.block).permute(1, 2, 4, 3, 5, 0, 6)
    inside = whole.flatten(3, 4).flatten(1, 2)[:, : cut.size[0], : cut.size[1]]
    return inside.to(dtype).contiguous()


def _key_area(cut: _Cut) -> tuple[slice, slice]:
    """Where the map lies in the padded one."""
    top, left = cut.kernel[0] // 2, cut.kernel[1] // 2
    return slice(top, top + cut.size[0]), slice(left, left + cut.size[1])


def _to_keys(x: Map, cut: _Cut) -> Keys:
    """The map, head by head, in a frame of zeros; a whole number of blocks along each axis."""
    length = [(count + reach - 1) * size for count, reach, size in zip(cut.grid, cut.reach, cut.block, strict=True)]
    keys = x.new_zeros(x.shape[3], x.shape[0], *length, x.shape[4], dtype=lse_dtype(x))
    keys[:, :, *_key_area(cut)] = x.permute(3, 0, 1, 2, 4)
    return keys


def _from_keys(keys: Keys, cut: _Cut, dtype: torch.dtype) -> Map:
    return keys[:, :, *_key_area(cut)].permute(1, 2, 3, 0, 4).to(dtype).contiguous()


def _gather_halos(keys: Keys, cut: _Cut, part: Part) -> Float[Tensor, "blocks keys head_dim"]:
    halos = keys.unfold(2, cut.halo[0], cut.block[0]).unfold(3, cut.halo[1], cut.block[1])
    halos = halos[*part, : cut.grid[1]].permute(0, 1, 2, 3, 5, 6, 4)  # (heads, B, rows, columns, halo, head_dim)
    return halos.flatten(4, 5).flatten(0, 3)


def _add_halos(keys: Keys, halos: Float[Tensor, "blocks keys head_dim"], cut: _Cut, part: Part) -> None:
    """Add what the halos of a part give to the keys, in an order that is always the same."""
    (down, across), columns = cut.block, cut.grid[1]
    heads, batch, rows = part
    target = keys.unflatten(3, (-1, across)).unflatten(2, (-1, down))[heads, batch]
    source = halos.view(*target.shape[:2], -1, columns, *cut.halo, halos.shape[-1]).transpose(3, 4)
    for y, x in product(range(cut.reach[0]), range(cut.reach[1])):
        piece = source[:, :, :, y * down : (y + 1) * down, :, x * across : (x + 1) * across]
        here = target[:, :, rows.start + y : rows.stop + y, : piece.shape[3], x : columns + x, : piece.shape[5]]
        here += piece


def _skew(dense: Float[Tensor, "blocks queries keys"], cut: _Cut) -> Float[Tensor, "blocks down across *kernel"]:
    """The taps of each query of a block among the products with its halo."""
    queries, keys = cut.queries, cut.halo[0] * cut.halo[1]
    down = cut.block[1] * keys + cut.halo[1]
    strides = queries * keys, down, keys + 1, cut.halo[1], 1
    return dense.as_strided((len(dense), *cut.block, *cut.kernel), strides)


def _skew_map(scores: Float[Tensor, "heads batch height width taps"], cut: _Cut, rows: int) -> Tensor:
    """`scores` tells what each key says to each tap; the same by query: what its tap o hears from the key there."""
    heads, batch, y, x, tap = scores.stride()
    strides = heads, batch, cut.block[0] * y, cut.block[1] * x, y, x, y + cut.kernel[1] * tap, x + tap
    return scores.as_strided((*scores.shape[:2], rows, cut.grid[1], *cut.block, *cut.kernel), strides)


class _Layout(NamedTuple):
    """The operands of a case as the products want them."""

    cut: _Cut
    q: Blocks | None
    k: Keys | None
    v: Keys
    rk: Float[Tensor, "heads taps head_dim"] | None
    rq: Float[Tensor, "heads taps head_dim"] | None
    rb: Float[Tensor, "heads taps"] | None
    scale: float | None
    valid: Bool[Tensor, "rows columns queries taps"] | None


def _valid_taps(geometry: Geometry, cut: _Cut, device: torch.device) -> Bool[Tensor, "rows columns queries taps"] | None:
    """Which taps are counted; None for all, and all for the queries that fill a block up."""
    if geometry.border == "zero":
        return None
    _, connected, offset = make_neighbors(geometry, *cut.size, device)
    valid = torch.zeros(len(offset), cut.taps, dtype=torch.bool, device=device)
    valid[torch.nonzero(connected)[:, 0], offset[connected]] = True
    blocks = _to_blocks(valid.view(1, *cut.size, 1, cut.taps).float(), cut, filler=1.0)
    return blocks[0, 0] > 0


def _lay_out(case: Case, cut: _Cut) -> _Layout:
    terms, v, geometry, _, _ = case
    tables = (None if table is None else table.to(lse_dtype(v)) for table in (terms.rk, terms.rq, terms.rb))
    q = None if terms.q is None else _to_blocks(terms.q, cut)
    k = None if terms.k is None else _to_keys(terms.k, cut)
    return _Layout(cut, q, k, _to_keys(v, cut), *tables, terms.scale, _valid_taps(geometry, cut, v.device))


def _cut_parts(layout: _Layout) -> Iterator[Part]:
    """Parts whose products fit the budget: some heads, or some images of one head, or some rows of one image."""
    cut, v = layout.cut, layout.v
    size = cut.queries * cut.halo[0] * cut.halo[1] * v.element_size()
    budget = PART_BYTES.get(v.device.type, PART_BYTES_ELSEWHERE) // size
    counts = v.shape[0], v.shape[1], cut.grid[0]
    costs = counts[1] * counts[2] * cut.grid[1], counts[2] * cut.grid[1], cut.grid[1]
    steps = [min(count, max(1, budget // max(1, cost))) for count, cost in zip(counts, costs, strict=True)]
    axes = (range(0, count, max(1, step)) for count, step in zip(counts, steps, strict=True))
    for starts in product(*axes):
        ends = (min(start + step, count) for start, step, count in zip(starts, steps, counts, strict=True))
        yield tuple(map(slice, starts, ends))


def _key_rows(keys: Keys, cut: _Cut, part: Part) -> Keys:
    """The rows of the map that the halos of a part cover."""
    heads, batch, rows = part
    down = cut.block[0]
    return keys[heads, batch, rows.start * down : (rows.stop + cut.reach[0] - 1) * down]


def _make_logits(layout: _Layout, part: Part, halos: Tensor | None) -> Float[Tensor, "blocks down across *kernel"]:
    cut, q = layout.cut, layout.q
    heads, batch, rows = part
    num_heads, num_blocks = heads.stop - heads.start, (batch.stop - batch.start) * (rows.stop - rows.start) * cut.grid[1]
    tokens = num_blocks * cut.queries
    rb = layout.v.new_zeros(1, 1, 1) if layout.rb is None else layout.rb[heads, None]
    if layout.rk is not None:
        logits = torch.baddbmm(rb, q[part].reshape(num_heads, tokens, -1), layout.rk[heads].mT)
    else:
        logits = rb.expand(num_heads, tokens, cut.taps).contiguous()
    if layout.rq is not None:
        area = _key_rows(layout.k, cut, part)
        scores = torch.bmm(area.reshape(num_heads, -1, area.shape[-1]), layout.rq[heads].mT)
        heard = _skew_map(scores.view(*area.shape[:-1], -1), cut, rows.stop - rows.start)
        logits.view(heard.shape).add_(heard)
    if layout.scale is not None:
        dense = torch.bmm(q[part].flatten(0, 3), halos.mT)
        taps = _skew(dense, cut)
        logits.view(taps.shape).add_(taps, alpha=layout.scale)
    if layout.valid is not None:
        logits.view(num_heads * (batch.stop - batch.start), rows.stop - rows.start, cut.grid[1], cut.queries, -1).masked_fill_(~layout.valid[rows], -math.inf)
    return logits.view(-1, cut.queries, cut.taps)


def _forward(case: Case, generator) -> tuple[Map, PerQuery]:
    cut = _make_cut(case.geometry, *case.v.shape[1:3])
    layout = _lay_out(case, cut)
    out = layout.v.new_empty(layout.v.shape[0], layout.v.shape[1], *cut.grid, cut.queries, case.v.shape[-1])
    lse = out.new_empty(out.shape[:-1])
    buffer = None
    for part in _cut_parts(layout):
        halos = None if layout.scale is None else _gather_halos(layout.k, cut, part)
        weights = _make_logits(layout, part, halos)
        top = weights.amax(-1, keepdim=True)
        total = weights.sub_(top).exp_().sum(-1, keepdim=True)
        lse[part] = (total.log() + top).view(lse[part].shape)
        if generator is not None:
            weights *= _keep(weights, case.dropout.p, generator)
        if buffer is None:
            buffer = weights.new_zeros(len(weights), cut.queries, cut.halo[0] * cut.halo[1])
        dense = buffer[: len(weights)]
        taps = _skew(dense, cut)
        taps.copy_(weights.view(taps.shape))
        torch.bmm(dense, _gather_halos(layout.v, cut, part), out=out[part].flatten(0, 3)).div_(total)
    return _from_blocks(out, cut, case.v.dtype), _from_blocks(lse[..., None], cut, lse.dtype)[..., 0]


def _backward(grad, lse, case: Case, generator) -> Operands:
    cut = _make_cut(case.geometry, *case.v.shape[1:3])
    layout = _lay_out(case, cut)
    grad = _to_blocks(grad, cut)
    lse = _to_blocks(lse[..., None], cut, math.inf)
    dq = None if layout.q is None else torch.zeros_like(layout.q)
    dk = None if layout.k is None else torch.zeros_like(layout.k)
    dv = torch.zeros_like(layout.v)
    drk, drq, drb = (None if t is None else torch.zeros_like(t) for t in (layout.rk, layout.rq, layout.rb))
    buffer = None
    for part in _cut_parts(layout):
        heads, batch, rows = part
        num_heads = heads.stop - heads.start
        halos = None if layout.scale is None else _gather_halos(layout.k, cut, part)
        weights = _make_logits(layout, part, halos)
        weights.sub_(lse[part].reshape(-1, cut.queries, 1)).exp_()
        if buffer is None:
            buffer = weights.new_zeros(len(weights), cut.queries, cut.halo[0] * cut.halo[1])
        dense = buffer[: len(weights)]
        taps = _skew(dense, cut)
        g = grad[part].flatten(0, 3)
        shown = weights
        if generator is not None:
            keep = _keep(weights, case.dropout.p, generator)
            shown = weights * keep
        taps.copy_(shown.view(taps.shape))
        _add_halos(dv, torch.bmm(dense.mT, g), cut, part)
        dw = torch.empty_like(weights)
        torch.mul(shown.view(taps.shape), _skew(torch.bmm(g, _gather_halos(layout.v, cut, part).mT), cut), out=dw.view(taps.shape))
        ds = dw.addcmul_(weights, dw.sum(-1, keepdim=True), value=-1)
        taken = ds.view(num_heads, -1, cut.taps)
        if layout.scale is not None:
            taps.copy_(ds.view(taps.shape))
            q = layout.q[part].flatten(0, 3)
            dq_ = torch.bmm(dense, halos, out=dq[part].flatten(0, 3)).mul_(layout.scale)
            _add_halos(dk, torch.bmm(dense.mT, q).mul_(layout.scale), cut, part)
        if layout.rk is not None:
            q = layout.q[part].reshape(num_heads, -1, layout.q.shape[-1])
            drk[heads] += torch.bmm(taken.mT, q)
            dq_ = dq[part].view(q.shape)
            dq_.baddbmm_(taken, layout.rk[heads])
        if layout.rb is not None:
            drb[heads] += taken.sum(1)
        if layout.rq is not None:
            area = _key_rows(layout.k, cut, part)
            scores = area.new_zeros(*area.shape[:-1], cut.taps)
            heard = _skew_map(scores, cut, rows.stop - rows.start)
            heard.copy_(ds.view(heard.shape))
            scores = scores.view(num_heads, -1, cut.taps)
            drq[heads] += torch.bmm(scores.mT, area.reshape(num_heads, -1, area.shape[-1]))
            _key_rows(dk, cut, part).add_(torch.bmm(scores, layout.rq[heads]).view(area.shape))
    t = case.terms
    dt = case.v.dtype
    return Operands(
        None if dq is None else _from_blocks(dq, cut, dt),
        None if dk is None else _from_keys(dk, cut, dt),
        _from_keys(dv, cut, dt),
        *(None if x is None else x.to(y.dtype) for x, y in ((drk, t.rk), (drq, t.rq), (drb, t.rb))),
    )


def _keep(weights, p, generator):
    return torch.rand(weights.shape, device=weights.device, dtype=weights.dtype, generator=generator).ge_(p).div_(1 - p)


def attention(case: Case) -> tuple[Map, PerQuery]:
    return _forward(case, None)


def attention_backward(grad, lse, case):
    return _backward(grad, lse, case, None)
