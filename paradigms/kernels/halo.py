"""The backend `torch` of fused sliding windows: dense products of query blocks with their halos.

Such a product has 3.4 times as many pairs as there are taps (7x7 kernel, blocks of 7x7), and is still the fastest way
in plain torch. Logits are read from it, and weights are written to it, through the strided view `skew`. Only the blocks
of one part are in memory at a time, so that memory beyond the operands does not grow with the map.

A dilated kernel is computed as an undilated one on each phase of the map: the pixels that steps of the dilation
connect. A clamped window (border `shift`) is a kernel with all of its 2k - 1 offsets per axis, of which it counts k.

A dense product multiplies pairs that are not taps by zero, and zero times NaN or infinity is NaN. Products therefore
read vectors whose non-finite values are replaced by zeros; afterwards, the results that depend on such a vector are set
to NaN.
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
"""Bytes of one dense product: small enough to stay in the cache."""

PART_BYTES_ELSEWHERE = 2**28
"""Bytes of one dense product on an accelerator: large enough to use all of it."""

MAX_PAIRS_PER_TAP = 16
"""With more pairs per tap, as for 1x1 kernels, most of a block is wasted and a loop over offsets is faster."""

MAX_PHASES = 16
"""A dilated kernel with more phases has too many products that are too small."""

NARROW = 16
"""With fewer channels per head, matrix products whose last axis is the channels are slow."""


class _Layout(NamedTuple):
    """The operands of a problem in the layouts that the products read."""

    cut: Cut
    q: Blocks | None
    k: Keys | None
    v: Keys
    rk: Float[Tensor, "heads taps head_dim"] | None
    rq: Float[Tensor, "heads taps head_dim"] | None
    rb: Float[Tensor, "heads taps"] | None
    scale: float | None
    uncounted: Bool[Tensor, "rows columns queries taps"] | None
    counts_all_inside: bool  # whether every tap inside the map is counted

    def parts(self) -> Iterator[Part]:
        """Parts whose dense products fit the bytes allowed; equal in the forward and the backward pass."""
        budget = PART_BYTES.get(self.v.device.type, PART_BYTES_ELSEWHERE)
        product_bytes = self.cut.num_queries * self.cut.num_keys * self.v.element_size()
        return cut_parts(self.cut, self.v.shape[0], self.v.shape[1], budget // product_bytes)

    def halos(self, part: Part) -> Halos | None:
        """The keys that q is multiplied by; None without the term q·k."""
        return None if self.scale is None or self.k is None else gather_halos(self.k, self.cut, part)

    def queries(self, part: Part) -> Float[Tensor, "blocks queries head_dim"]:
        """The queries of the blocks of a part."""
        assert self.q is not None
        return self.q[part].flatten(0, 3)

    def keys(self, part: Part) -> Float[Tensor, "heads keys head_dim"]:
        """The keys of a part, each once; halos overlap."""
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
    """The taps that are not counted. Queries in the padding of a block count all taps."""
    (counted,) = offset.list_counted(geometry, height, width)
    cut = cut_map((height, width), geometry.offset_span)
    (rows, columns), (down, across) = cut.grid, cut.block
    filled = np.pad(~counted, ((0, rows * down - height), (0, columns * across - width), (0, 0)))
    blocks = filled.reshape(rows, down, columns, across, -1).swapaxes(1, 2)
    return (blocks.reshape(rows, columns, down * across, -1),)


def _find_uncounted(
    geometry: Geometry, size: tuple[int, int], device: torch.device
) -> Bool[Tensor, "rows columns queries taps"] | None:
    """`_list_uncounted` as a tensor; None if all taps are counted."""
    if geometry.border == "zero":
        return None
    (uncounted,) = load_constants(_list_uncounted, geometry, *size, device=device)
    return uncounted  # type: ignore[no-any-return]


def _make_logits(layout: _Layout, part: Part, halos: Halos | None) -> Taps:
    """Eq. 4's terms for the taps of a part; -inf where a tap is not counted."""
    logits = _start_logits(layout, part)
    if layout.rq is not None:
        by_key = torch.bmm(layout.keys(part), layout.rq[part.heads].mT)
        by_key = by_key.view(*take_rows(layout.v, layout.cut, part).shape[:-1], -1)
        by_query = skew_rows(by_key, layout.cut)
        logits.view(by_query.shape).add_(by_query)
    if halos is not None:
        assert layout.scale is not None
        taps = skew(torch.bmm(layout.queries(part), halos.mT), layout.cut)
        logits.view(taps.shape).add_(taps, alpha=layout.scale)
    if layout.uncounted is not None:
        uncounted = layout.uncounted[part.rows]
        logits.view(-1, *uncounted.shape).masked_fill_(uncounted, -math.inf)
    return logits


def _start_logits(layout: _Layout, part: Part) -> Taps:
    """The terms without keys: q·r^k + r^b."""
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
    """Draws the weights that are kept, part by part; the same in the forward and the backward pass."""

    def __init__(self, dropout: Dropout | None, device: torch.device) -> None:
        self.p = 0.0 if dropout is None else dropout.p
        self.generator = None if dropout is None else torch.Generator(device).manual_seed(dropout.seed)

    def __call__(self, weights: Taps) -> Taps:
        """Drop weights and scale the others by 1 / (1 - p)."""
        if self.generator is None:
            return weights
        draws = torch.rand(weights.shape, generator=self.generator, device=weights.device)
        return weights * (draws >= self.p) / (1 - self.p)


def _drop_infinite(x: Tensor) -> Tensor:
    """Replace values that are not finite by zeros."""
    return x.nan_to_num(0.0, 0.0, 0.0)


def _flag_infinite(x: Float[Tensor, "*vectors channels"]) -> Float[Tensor, "*vectors"]:
    """NaN for each vector with a value that is not finite, zero for the others."""
    return (x * 0).sum(dim=-1)


def _clear_uncounted(layout: _Layout, part: Part, taps: Taps) -> Taps:
    """Set taps inside the map that a query does not count to zero, since they may be NaN."""
    if layout.uncounted is not None and not layout.counts_all_inside:
        uncounted = layout.uncounted[part.rows]
        taps.view(-1, *uncounted.shape).masked_fill_(uncounted, 0.0)
    return taps


def _collect_flags(v: Map, geometry: Geometry) -> Float[Tensor, "batch height width heads"]:
    """NaN for each query that counts a vector with a non-finite value, zero for the others; for undilated kernels."""
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
    """Writes weights into matrices of (queries of a block, keys of its halo), zero where there is no tap.

    All calls share one buffer.
    """

    def __init__(self, cut: Cut) -> None:
        self.cut = cut
        self.buffer: Tensor | None = None

    def __call__(self, weights: Taps, factor: float = 1.0) -> Float[Tensor, "blocks queries keys"]:
        """The matrices of the weights times a factor; overwrites the result of the call before."""
        if self.buffer is None or len(self.buffer) < len(weights):
            self.buffer = weights.new_zeros(len(weights), self.cut.num_queries, self.cut.num_keys)
        dense = self.buffer[: len(weights)]
        taps = skew(dense, self.cut)
        torch.mul(weights.view(taps.shape), factor, out=taps)
        return dense


def _multiply(weights: Tensor, vectors: Tensor) -> Tensor:
    """Matrix products. With few channels the transposed product is up to three times as fast on CPUs."""
    if vectors.shape[-1] < NARROW:
        return torch.bmm(vectors.mT, weights.mT).mT
    return torch.bmm(weights, vectors)


def _add_product(total: Tensor, weights: Tensor, vectors: Tensor) -> None:
    """Add a matrix product to `total` in place."""
    if vectors.shape[-1] < NARROW:
        total += _multiply(weights, vectors)
    else:
        total.baddbmm_(weights, vectors)


def _attend(problem: Problem, dropped: _Dropped, out: Map, normalizer: Normalizer) -> None:
    """Compute the output and the normalizer of an undilated problem."""
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
    """Compute the gradients of the maps of an undilated problem, and add to those of the tables."""
    layout = _lay_out(problem)
    cut, spread = layout.cut, _Spread(layout.cut)
    blocks, normalizers = to_blocks(grad, cut), to_blocks(normalizer, cut, filler=math.inf)  # weights of padding are 0
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
        total = total + flags[part].flatten(0, 3)  # a NaN in the gradient of a query makes its weights NaN
        weights = _clear_uncounted(layout, part, _make_logits(layout, part, halos).sub_(top).exp_().div_(total))
        grad_out = blocks[part].flatten(0, 3)
        kept = dropped(weights)
        add_halos(to.v, _multiply(spread(kept).mT, grad_out), cut, part)
        grad_kept = skew(torch.bmm(grad_out, gather_halos(layout.v, cut, part).mT), cut)
        # softmax: the gradient of a logit is w (g - Σ w g); w g is kept * grad_kept, dropout included
        grad_logits = _clear_uncounted(layout, part, torch.mul(kept.view(grad_kept.shape), grad_kept).view_as(weights))
        grad_logits = grad_logits.addcmul_(weights, grad_logits.sum(dim=-1, keepdim=True), value=-1)
        grad_logits = _clear_uncounted(layout, part, grad_logits)
        _add_gradients_of_tables(layout, to, part, grad_logits)
        if halos is not None and layout.scale is not None:
            _add_gradients_of_products(layout, to, part, spread(grad_logits, layout.scale), halos)
    if gradients.q is not None and to.q is not None:
        write_blocks(gradients.q, to.q, cut)
    for target, keys in ((gradients.k, to.k), (gradients.v, to.v)):
        if target is not None and keys is not None:
            write_keys(target, keys, cut)


def _add_gradients_of_tables(layout: _Layout, to: _Layout, part: Part, grad_logits: Taps) -> None:
    """Add the gradients of the terms with tables: of r^b, of r^k and q, and of r^q and k."""
    per_head = grad_logits.view(part.heads.stop - part.heads.start, -1, layout.cut.num_taps)
    if to.rb is not None:
        to.rb[part.heads] += per_head.sum(dim=1)
    if to.rk is not None and to.q is not None and layout.rk is not None:
        _add_product(to.rk[part.heads], per_head.mT, layout.queries(part).view(*per_head.shape[:2], -1))
        _add_product(to.q[part].flatten(1, 4), per_head, layout.rk[part.heads])
    if to.rq is not None and to.k is not None and layout.rq is not None:
        rows = take_rows(to.k, layout.cut, part)
        by_key = rows.new_zeros(*rows.shape[:-1], layout.cut.num_taps)
        by_query = skew_rows(by_key, layout.cut)
        by_query.copy_(grad_logits.view(by_query.shape))
        by_key = by_key.flatten(1, 3)
        _add_product(to.rq[part.heads], by_key.mT, layout.keys(part))
        rows += _multiply(by_key, layout.rq[part.heads]).view(rows.shape)


def _add_gradients_of_products(layout: _Layout, to: _Layout, part: Part, dense: Tensor, halos: Halos) -> None:
    """Add the gradients of q and k in the term q·k; `dense` has the gradients of its logits."""
    assert to.q is not None and to.k is not None
    _add_product(to.q[part].flatten(0, 3), dense, _drop_infinite(halos))
    add_halos(to.k, _multiply(dense.mT, _drop_infinite(layout.queries(part))), layout.cut, part)


def _phases(geometry: Geometry, v: Map) -> Iterator[Area]:
    """The phases of a map: each has the pixels that steps of the dilation connect."""
    (down, across), (_, height, width, *_) = geometry.dilation, v.shape
    for y, x in product(range(min(down, height)), range(min(across, width))):
        yield slice(None), slice(y, None, down), slice(x, None, across)


def _take(problem: Problem, area: Area) -> Problem:
    """The undilated problem of one phase."""
    q, k = (None if x is None else x[area] for x in (problem.terms.q, problem.terms.k))
    geometry = replace(problem.geometry, dilation=(1, 1))
    return problem._replace(terms=problem.terms._replace(q=q, k=k), v=problem.v[area], geometry=geometry)


def _wastes_blocks(problem: Problem) -> bool:
    """Whether most pairs of a block would not be taps, so that the loop over offsets is faster."""
    geometry, (down, across) = problem.geometry, problem.geometry.dilation
    cut = cut_map((-(-problem.v.shape[1] // down), -(-problem.v.shape[2] // across)), geometry.offset_span)
    return cut.num_keys > MAX_PAIRS_PER_TAP * cut.num_taps or down * across > MAX_PHASES


def attention(problem: Problem) -> tuple[Map, Normalizer]:
    """The output and the normalizer of the softmax."""
    if _wastes_blocks(problem):
        return offset.attention(problem)
    out = problem.v.new_empty(problem.v.shape)
    normalizer = out.new_empty(*out.shape[:-1], 2, dtype=lse_dtype(out))
    dropped = _Dropped(problem.dropout, out.device)
    with torch.autocast(out.device.type, enabled=False):  # 16-bit operands are computed in float32
        for area in _phases(problem.geometry, problem.v):
            _attend(_take(problem, area), dropped, out[area], normalizer[area])
    return out, normalizer


def attention_backward(grad: Map, normalizer: Normalizer, problem: Problem) -> Operands:
    """The gradients of the operands, given the gradient of the output."""
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
