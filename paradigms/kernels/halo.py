"""The backend `torch` of fused sliding windows: dense products of query blocks with their halos.

Such a product holds 3.4 times the pairs that are taps (7x7, blocks of 7x7), and is still the fastest that plain torch
offers. Logits are read from it, and weights written to it, through the strided view `skew`. Only the blocks of one part
are held at a time, so that memory beyond the operands does not grow with the map.

A dilated kernel is an undilated one on each phase of the map: the pixels that a step of the dilation connects. A
clamped window (border `shift`) is a kernel of all its 2k - 1 offsets an axis, of which it counts k.

A dense product multiplies pairs that are no taps by zero, and zero times NaN or infinity is NaN. So products read
vectors with zeros in the place of what is not finite, and the results of the taps that such a vector meets become NaN.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from paradigms.constants import load_constants
from paradigms.functional import Array, Geometry
from paradigms.kernels import offset
from paradigms.kernels.blocks import (
    Blocks,
    Cut,
    Halos,
    Keys,
    Part,
    add_halos,
    cut_map,
    cut_parts,
    gather_halos,
    skew,
    skew_rows,
    take_rows,
    to_blocks,
    to_keys,
    write_blocks,
    write_keys,
)
from paradigms.kernels.problem import Dropout, Map, Normalizer, Operands, Problem, lse_dtype

Taps = Float[Tensor, "blocks queries taps"]
Area = tuple[slice, slice, slice]

PART_BYTES = {"cpu": 2**22}
"""Of one dense product: small enough to stay in the cache between its steps."""

PART_BYTES_ELSEWHERE = 2**28
"""On an accelerator, large enough to fill it."""

MAX_PAIRS_PER_TAP = 16
"""Above it blocks are mostly waste, as for 1x1 kernels, and a loop over offsets is faster; see `_wastes_blocks`."""

MAX_PHASES = 16
"""Above it the phases of a dilated kernel are too many and too small."""

NARROW = 16
"""Below so many channels a head, products that end in them are slow."""


class _Layout(NamedTuple):
    """The operands of a problem as its products want them."""

    cut: Cut
    q: Blocks | None
    k: Keys | None
    v: Keys
    rk: Float[Tensor, "heads taps head_dim"] | None
    rq: Float[Tensor, "heads taps head_dim"] | None
    rb: Float[Tensor, "heads taps"] | None
    scale: float | None
    uncounted: Bool[Tensor, "rows columns queries taps"] | None
    counts_all_inside: bool  # whether what is not counted lies outside the map

    def parts(self) -> Iterator[Part]:
        """Of the map, such that a product fits its bytes; forward and backward pass cut alike."""
        budget = PART_BYTES.get(self.v.device.type, PART_BYTES_ELSEWHERE)
        product_bytes = self.cut.num_queries * self.cut.num_keys * self.v.element_size()
        return cut_parts(self.cut, self.v.shape[0], self.v.shape[1], budget // product_bytes)

    def halos(self, part: Part) -> Halos | None:
        """What q is multiplied by; None without q·k."""
        return None if self.scale is None or self.k is None else gather_halos(self.k, self.cut, part)

    def queries(self, part: Part) -> Float[Tensor, "blocks queries head_dim"]:
        """The blocks of a part."""
        assert self.q is not None
        return self.q[part].flatten(0, 3)

    def keys(self, part: Part) -> Float[Tensor, "heads keys head_dim"]:
        """Each once, unlike in the halos of a part."""
        assert self.k is not None
        return take_rows(self.k, self.cut, part).flatten(1, 3)


def _lay_out(problem: Problem) -> _Layout:
    terms, v, geometry, _, _ = problem
    cut = cut_map((v.shape[1], v.shape[2]), geometry.offset_span)
    tables = terms.rk, terms.rq, terms.rb
    rk, rq, rb = (None if table is None else table.to(lse_dtype(v)).contiguous() for table in tables)
    q = None if terms.q is None else to_blocks(terms.q, cut)
    k = None if terms.k is None else to_keys(terms.k, cut)
    uncounted = _find_uncounted(geometry, cut.size, v.device)
    return _Layout(cut, q, k, to_keys(v, cut), rk, rq, rb, terms.scale, uncounted, geometry.border != "shift")


def _list_uncounted(geometry: Geometry, height: int, width: int) -> tuple[Bool[Array, "rows columns queries taps"]]:
    """The taps that are not counted. The queries that fill a block up count all."""
    (counted,) = offset.list_counted(geometry, height, width)
    cut = cut_map((height, width), geometry.offset_span)
    (rows, columns), (down, across) = cut.grid, cut.block
    filled = np.pad(~counted, ((0, rows * down - height), (0, columns * across - width), (0, 0)))
    blocks = filled.reshape(rows, down, columns, across, -1).swapaxes(1, 2)
    return (blocks.reshape(rows, columns, down * across, -1),)


def _find_uncounted(
    geometry: Geometry, size: tuple[int, int], device: torch.device
) -> Bool[Tensor, "rows columns queries taps"] | None:
    """As `_list_uncounted`; None where all are counted."""
    if geometry.border == "zero":
        return None
    (uncounted,) = load_constants(_list_uncounted, geometry, *size, device=device)
    return uncounted  # type: ignore[no-any-return]


def _make_logits(layout: _Layout, part: Part, halos: Halos | None) -> Taps:
    """Eq. 4's terms for the taps of a part; -inf where a tap is not counted."""
    logits = _start_logits(layout, part)
    if layout.rq is not None:
        said = torch.bmm(layout.keys(part), layout.rq[part.heads].mT)
        said = said.view(*take_rows(layout.v, layout.cut, part).shape[:-1], -1)
        heard = skew_rows(said, layout.cut)
        logits.view(heard.shape).add_(heard)
    if halos is not None:
        assert layout.scale is not None
        taps = skew(torch.bmm(layout.queries(part), halos.mT), layout.cut)
        logits.view(taps.shape).add_(taps, alpha=layout.scale)
    if layout.uncounted is not None:
        uncounted = layout.uncounted[part.rows]
        logits.view(-1, *uncounted.shape).masked_fill_(uncounted, -math.inf)
    return logits


def _start_logits(layout: _Layout, part: Part) -> Taps:
    """What needs no keys: q·r^k + r^b."""
    cut, heads = layout.cut, part.heads
    rb = layout.v.new_zeros(1, 1, 1) if layout.rb is None else layout.rb[heads, None]
    num_blocks = math.prod(length.stop - length.start for length in part) * cut.grid[1]
    if layout.rk is None:
        shape = heads.stop - heads.start, num_blocks // (heads.stop - heads.start) * cut.num_queries, cut.num_taps
        logits = rb.expand(shape).clone(memory_format=torch.contiguous_format)
    else:
        rk = layout.rk[heads]
        logits = torch.baddbmm(rb, layout.queries(part).reshape(len(rk), -1, rk.shape[-1]), rk.mT)
    return logits.view(num_blocks, cut.num_queries, cut.num_taps)


class _Dropped:
    """Draws which weights are kept, part by part, the same in the forward and the backward pass."""

    def __init__(self, dropout: Dropout | None, device: torch.device) -> None:
        self.p = 0.0 if dropout is None else dropout.p
        self.generator = None if dropout is None else torch.Generator(device).manual_seed(dropout.seed)

    def __call__(self, weights: Taps) -> Taps:
        """The weights that go on, scaled to the same sum on average."""
        if self.generator is None:
            return weights
        draws = torch.rand(weights.shape, generator=self.generator, device=weights.device)
        return weights * (draws >= self.p) / (1 - self.p)


def _drop_infinite(x: Tensor) -> Tensor:
    """Zeros in the place of what is not finite."""
    return x.nan_to_num(0.0, 0.0, 0.0)


def _flag_infinite(x: Float[Tensor, "*vectors channels"]) -> Float[Tensor, "*vectors"]:
    """NaN for each vector that is not finite, zero for the others."""
    return (x * 0).sum(dim=-1)


def _clear_uncounted(layout: _Layout, part: Part, taps: Taps) -> Taps:
    """Zero, where NaN may be, at keys inside the map that a query does not count."""
    if layout.uncounted is not None and not layout.counts_all_inside:
        uncounted = layout.uncounted[part.rows]
        taps.view(-1, *uncounted.shape).masked_fill_(uncounted, 0.0)
    return taps


def _collect_flags(v: Map, geometry: Geometry) -> Float[Tensor, "batch height width heads"]:
    """NaN for each query that counts a vector which is not finite, zero for the others; undilated."""
    found = _flag_infinite(v).permute(0, 3, 1, 2)
    for dim in range(2):
        length, size = v.shape[dim + 1], geometry.kernel_size[dim]
        halo = 0 if geometry.border == "shift" else size // 2
        window = [1, 1]
        window[dim] = min(size, length) if geometry.border == "shift" else size
        found = max_pool2d(found, window, stride=1, padding=[halo * (axis == dim) for axis in range(2)])
        if geometry.border == "shift":
            first = torch.arange(length, device=v.device) - size // 2
            found = found.index_select(dim + 2, first.clamp(0, found.shape[dim + 2] - 1))
    return found.permute(0, 2, 3, 1)


class _Spread:
    """Weights as matrices of a block's queries and its halo's keys; one buffer, zero where there is no tap."""

    def __init__(self, cut: Cut) -> None:
        self.cut = cut
        self.buffer: Tensor | None = None

    def __call__(self, weights: Taps, factor: float = 1.0) -> Float[Tensor, "blocks queries keys"]:
        """Times a factor; overwrites what it returned before."""
        if self.buffer is None or len(self.buffer) < len(weights):
            self.buffer = weights.new_zeros(len(weights), self.cut.num_queries, self.cut.num_keys)
        dense = self.buffer[: len(weights)]
        taps = skew(dense, self.cut)
        torch.mul(weights.view(taps.shape), factor, out=taps)
        return dense


def _multiply(weights: Tensor, vectors: Tensor) -> Tensor:
    """Matrix products; narrow ones by their transposes, which CPU libraries make up to three times as fast."""
    if vectors.shape[-1] < NARROW:
        return torch.bmm(vectors.mT, weights.mT).mT
    return torch.bmm(weights, vectors)


def _add_product(total: Tensor, weights: Tensor, vectors: Tensor) -> None:
    """To matrices in their place, without a passing copy where torch can."""
    if vectors.shape[-1] < NARROW:
        total += _multiply(weights, vectors)
    else:
        total.baddbmm_(weights, vectors)


def _attend(problem: Problem, dropped: _Dropped, out: Map, normalizer: Normalizer) -> None:
    """Write the output of an undilated problem."""
    layout = _lay_out(problem)
    cut, spread = layout.cut, _Spread(layout.cut)
    blocks = layout.v.new_zeros(*layout.v.shape[:2], *cut.grid, cut.num_queries, layout.v.shape[-1])
    normalizers = blocks.new_empty(*blocks.shape[:-1], 2)
    values = _drop_infinite(layout.v)
    for part in layout.parts():
        halos = layout.halos(part)
        weights = _make_logits(layout, part, halos)
        top = weights.amax(dim=-1, keepdim=True)
        total = weights.sub_(top).exp_().sum(dim=-1, keepdim=True)
        normalizers[part] = torch.cat([top, total], dim=-1).view(normalizers[part].shape)
        mixed = blocks[part].flatten(0, 3)
        _add_product(mixed, spread(dropped(weights)), gather_halos(values, cut, part))
        mixed /= total
    write_blocks(out, blocks, cut)
    out += _collect_flags(problem.v, problem.geometry)[..., None]
    write_blocks(normalizer, normalizers, cut)


def _attend_backward(
    problem: Problem, dropped: _Dropped, grad: Map, normalizer: Normalizer, gradients: Operands
) -> None:
    """Write the gradients of the maps of an undilated problem, and add those of the tables."""
    layout = _lay_out(problem)
    cut, spread = layout.cut, _Spread(layout.cut)
    blocks, normalizers = to_blocks(grad, cut), to_blocks(normalizer, cut, filler=math.inf)  # what fills up weighs 0
    blocks, flags = _drop_infinite(blocks), _flag_infinite(blocks)[..., None]
    to = layout._replace(
        q=None if layout.q is None else torch.zeros_like(layout.q),
        k=None if layout.k is None else torch.zeros_like(layout.k),
        v=torch.zeros_like(layout.v),
        rk=gradients.rk,
        rq=gradients.rq,
        rb=gradients.rb,
    )
    for part in layout.parts():
        halos = layout.halos(part)
        top, total = normalizers[part].flatten(0, 3).split(1, dim=-1)
        total = total + flags[part].flatten(0, 3)  # a query's weights are NaN where its gradient is
        weights = _clear_uncounted(layout, part, _make_logits(layout, part, halos).sub_(top).exp_().div_(total))
        said = blocks[part].flatten(0, 3)
        kept = dropped(weights)
        add_halos(to.v, _multiply(spread(kept).mT, said), cut, part)
        heard = skew(torch.bmm(said, gather_halos(layout.v, cut, part).mT), cut)
        # the softmax's w (h - Σ w h), where h is already times what dropout made of a weight
        change = _clear_uncounted(layout, part, torch.mul(kept.view(heard.shape), heard).view_as(weights))
        change = change.addcmul_(weights, change.sum(dim=-1, keepdim=True), value=-1)
        change = _clear_uncounted(layout, part, change)
        _pass_to_tables(layout, to, part, change)
        if halos is not None and layout.scale is not None:
            _pass_to_products(layout, to, part, spread(change, layout.scale), halos)
    if gradients.q is not None and to.q is not None:
        write_blocks(gradients.q, to.q, cut)
    for target, keys in ((gradients.k, to.k), (gradients.v, to.v)):
        if target is not None and keys is not None:
            write_keys(target, keys, cut)


def _pass_to_tables(layout: _Layout, to: _Layout, part: Part, change: Taps) -> None:
    """From the change of the logits to the position tables, and to what they are multiplied by."""
    per_head = change.view(part.heads.stop - part.heads.start, -1, layout.cut.num_taps)
    if to.rb is not None:
        to.rb[part.heads] += per_head.sum(dim=1)
    if to.rk is not None and to.q is not None and layout.rk is not None:
        _add_product(to.rk[part.heads], per_head.mT, layout.queries(part).view(*per_head.shape[:2], -1))
        _add_product(to.q[part].flatten(1, 4), per_head, layout.rk[part.heads])
    if to.rq is not None and to.k is not None and layout.rq is not None:
        rows = take_rows(to.k, layout.cut, part)
        said = rows.new_zeros(*rows.shape[:-1], layout.cut.num_taps)
        heard = skew_rows(said, layout.cut)
        heard.copy_(change.view(heard.shape))
        said = said.flatten(1, 3)
        _add_product(to.rq[part.heads], said.mT, layout.keys(part))
        rows += _multiply(said, layout.rq[part.heads]).view(rows.shape)


def _pass_to_products(layout: _Layout, to: _Layout, part: Part, dense: Tensor, halos: Halos) -> None:
    """From the change of the logits to q and k of q·k."""
    assert to.q is not None and to.k is not None
    _add_product(to.q[part].flatten(0, 3), dense, _drop_infinite(halos))
    add_halos(to.k, _multiply(dense.mT, _drop_infinite(layout.queries(part))), layout.cut, part)


def _phases(geometry: Geometry, v: Map) -> Iterator[Area]:
    """The pixels that a dilated kernel connects; a map has as many such sets as it has steps within the dilation."""
    (down, across), (_, height, width, *_) = geometry.dilation, v.shape
    for y, x in product(range(min(down, height)), range(min(across, width))):
        yield slice(None), slice(y, None, down), slice(x, None, across)


def _take(problem: Problem, area: Area) -> Problem:
    """The undilated problem of one phase."""
    q, k = (None if x is None else x[area] for x in (problem.terms.q, problem.terms.k))
    geometry = replace(problem.geometry, dilation=(1, 1))
    return problem._replace(terms=problem.terms._replace(q=q, k=k), v=problem.v[area], geometry=geometry)


def _wastes_blocks(problem: Problem) -> bool:
    """Whether blocks would be mostly waste, so that the loop over offsets is faster."""
    geometry, (down, across) = problem.geometry, problem.geometry.dilation
    cut = cut_map((-(-problem.v.shape[1] // down), -(-problem.v.shape[2] // across)), geometry.offset_span)
    return cut.num_keys > MAX_PAIRS_PER_TAP * cut.num_taps or down * across > MAX_PHASES


def attention(problem: Problem) -> tuple[Map, Normalizer]:
    """The output and the softmax's denominator."""
    if _wastes_blocks(problem):
        return offset.attention(problem)
    out = problem.v.new_empty(problem.v.shape)
    normalizer = out.new_empty(*out.shape[:-1], 2, dtype=lse_dtype(out))
    dropped = _Dropped(problem.dropout, out.device)
    with torch.autocast(out.device.type, enabled=False):  # 16-bit numbers are computed with in float32
        for area in _phases(problem.geometry, problem.v):
            _attend(_take(problem, area), dropped, out[area], normalizer[area])
    return out, normalizer


def attention_backward(grad: Map, normalizer: Normalizer, problem: Problem) -> Operands:
    """The gradients of the sum of `grad` times the output."""
    if _wastes_blocks(problem):
        return offset.attention_backward(grad, normalizer, problem)
    terms, v, *_ = problem
    maps = (None if x is None else x.new_empty(x.shape) for x in (terms.q, terms.k, v))
    tables = (None if x is None else x.new_zeros(x.shape, dtype=lse_dtype(x)) for x in (terms.rk, terms.rq, terms.rb))
    gradients = Operands(*maps, *tables)
    dropped = _Dropped(problem.dropout, v.device)
    with torch.autocast(v.device.type, enabled=False):
        for area in _phases(problem.geometry, v):
            q, k, of_v = (None if x is None else x[area] for x in gradients[:3])
            _attend_backward(
                _take(problem, area), dropped, grad[area], normalizer[area], gradients._replace(q=q, k=k, v=of_v)
            )
    return offset.round_once(gradients, problem)
