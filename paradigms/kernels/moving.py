"""Compiled kernels for taps whose offset depends on the query: border `shift`, chunks, filters in windows.

They are built from four products, as sliding windows with fixed offsets are from those of `primitive`. The filters m
have one row per offset; c(i, o) is the key of tap o of query i, at offset δ(i, o):

    dot(a, b)[i, o] = Σ_c a_{i,c} m_{δ,c} b_{c(i,o),c}       mix(w, v)[i] = Σ_o w_{i,o} m_δ v_{c(i,o)}
    spread(w, a)[j] = Σ_{c(i,o)=j} w_{i,o} m_δ a_i           correlate(w, a, b)[δ] = Σ_{i,o at δ} w_{i,o} a_i b_{c(i,o)}

All are derivatives of Σ w m a b. The derivatives of each product are therefore the other products, to any order.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import dropout, pad
from torch.utils.flop_counter import register_flop_formula

from paradigms.functional import Aggregation, Geometry, Normalization, Outside, Scores, Terms, make_neighbors
from paradigms.kernels import cpu, reference
from paradigms.kernels.factors import register_derivatives
from paradigms.kernels.fused import Shape, read_geometry, write_geometry
from paradigms.kernels.position_logits import add_position_terms, are_position_terms
from paradigms.kernels.problem import Map
from paradigms.kernels.transforms import register_composition

Taps = Float[Tensor, "batch height width heads taps"]
Filters = Float[Tensor, "batch heads offsets head_dim"]


@torch.library.custom_op("paradigms::moving_dot", mutates_args=())
def _dot(a: Tensor, b: Tensor, filters: Tensor | None, geometry: str) -> Tensor:
    return cpu.dot(a, b, filters, read_geometry(geometry))


@torch.library.custom_op("paradigms::moving_mix", mutates_args=())
def _mix(weights: Tensor, v: Tensor, filters: Tensor | None, geometry: str) -> Tensor:
    return cpu.mix(weights, v, filters, read_geometry(geometry))


@torch.library.custom_op("paradigms::moving_spread", mutates_args=())
def _spread(weights: Tensor, v: Tensor, filters: Tensor | None, geometry: str) -> Tensor:
    return cpu.spread(weights, v, filters, read_geometry(geometry))


@torch.library.custom_op("paradigms::moving_correlate", mutates_args=())
def _correlate(weights: Tensor, a: Tensor, b: Tensor, geometry: str) -> Tensor:
    return cpu.correlate(weights, a, b, read_geometry(geometry))


@_dot.register_fake
def _(a: Tensor, b: Tensor, filters: Tensor | None, geometry: str) -> Tensor:  # noqa: ARG001
    return a.new_empty(*a.shape[:-1], read_geometry(geometry).num_taps)


@_mix.register_fake
def _(weights: Tensor, v: Tensor, filters: Tensor | None, geometry: str) -> Tensor:  # noqa: ARG001
    return v.new_empty(v.shape)


@_spread.register_fake
def _(weights: Tensor, v: Tensor, filters: Tensor | None, geometry: str) -> Tensor:  # noqa: ARG001
    return v.new_empty(v.shape)


@_correlate.register_fake
def _(weights: Tensor, a: Tensor, b: Tensor, geometry: str) -> Tensor:  # noqa: ARG001
    return a.new_empty(len(a), a.shape[3], read_geometry(geometry).num_offsets, a.shape[-1])


_OPERATORS = torch.ops.paradigms

WIDTH = 32
"""Channels that are computed together if heads share weights: enough to fill a vector, few enough for the cache."""


_PRODUCTS = {
    "weights": _OPERATORS.moving_dot,
    "a": _OPERATORS.moving_mix,
    "b": _OPERATORS.moving_spread,
    "filters": _OPERATORS.moving_correlate,
}

for _operator, _made in zip((_dot, _mix, _spread, _correlate), _PRODUCTS, strict=True):
    register_derivatives(_operator, _made, _PRODUCTS)


def _compose(product: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args: product(*args[:-1], read_geometry(args[-1]))


register_composition(_dot, _compose(reference.dot))
register_composition(_mix, _compose(reference.mix))
register_composition(_spread, _compose(reference.spread))
register_composition(_correlate, _compose(reference.correlate))


@register_flop_formula(
    [_OPERATORS.moving_dot, _OPERATORS.moving_mix, _OPERATORS.moving_spread, _OPERATORS.moving_correlate]
)
def _count_flops(_: object, b: Shape, third: object | None, geometry: str, **_out: object) -> int:
    """The second operand is a map in each of the products."""
    products = 1 if third is None else 2
    return 2 * products * torch.Size(b).numel() * read_geometry(geometry).num_taps


def _expand(table: Tensor, batch: int) -> Filters:
    """Expand filters to every image; torch then sums the gradients over images that share them."""
    return table.expand(batch, -1, -1, -1)


def _share(x: Map, table: Float[Tensor, "table_heads offsets head_dim"]) -> tuple[Tensor, Tensor]:
    """Expand queries or keys and a table to the same number of heads; one of them may have a single head."""
    heads = max(x.shape[3], len(table))
    return x.expand(-1, -1, -1, heads, -1), _expand(table[None].expand(-1, heads, -1, -1), len(x))


def _make_logits(terms: Terms, v: Map, geometry: str) -> Float[Tensor, "#batch height width #heads taps"]:
    """The terms of Eq. 4. Each table is a filter of `dot`, with ones in place of the keys, the queries or both."""
    parts: list[Tensor] = []
    if terms.scale is not None:
        assert terms.q is not None and terms.k is not None
        parts.append(_OPERATORS.moving_dot(terms.q * terms.scale, terms.k, None, geometry))
    if terms.rk is not None and terms.q is not None:
        q, rk = _share(terms.q, terms.rk)
        parts.append(_OPERATORS.moving_dot(q, torch.ones_like(q), rk, geometry))
    if terms.rq is not None and terms.k is not None:
        k, rq = _share(terms.k, terms.rq)
        parts.append(_OPERATORS.moving_dot(torch.ones_like(k), k, rq, geometry))
    if terms.rb is not None:
        ones = v.new_ones(1, *v.shape[1:3], len(terms.rb), 1)
        parts.append(_OPERATORS.moving_dot(ones, ones, terms.rb[None, :, :, None].to(v.dtype), geometry))
    assert len(parts) > 0  # torch.compile cannot trace bool(list)
    return sum(parts[1:], start=parts[0])


def _valid_taps(geometry: Geometry, v: Map) -> Bool[Tensor, "height width 1 taps"] | None:
    """The taps that each query counts; None if all queries count all taps."""
    height, width = v.shape[1:3]
    if geometry.border == "zero":
        return None
    if geometry.border == "shift" and all(
        length >= size * step
        for length, size, step in zip((height, width), geometry.kernel_size, geometry.dilation, strict=True)
    ):
        return None
    return make_neighbors(geometry, height, width, v.device).valid.view(height, width, 1, -1)


def attend(
    scores: Scores,
    v: Map,
    geometry: Geometry,
    normalization: Normalization,
    aggregation: Aggregation,
    outside: Outside,  # noqa: ARG001 - nothing lies outside under these borders
    dropout_p: float,
) -> Map:
    """Eq. 4 of arXiv:2112.12786 with any normalization: border `shift`, and chunks with borders `zero` and `mask`."""
    assert isinstance(scores, Terms)
    if geometry.kind == "chunk" and geometry.border == "zero":
        return _attend_framed(scores, v, geometry, normalization, aggregation, dropout_p)
    how = write_geometry(geometry)
    is_fused = geometry.border == "shift" and are_position_terms(scores)
    logits = add_position_terms(scores, how) if is_fused else _make_logits(scores, v, how)
    weights = normalization(logits, _valid_taps(geometry, v))
    weights = dropout(weights.expand(*v.shape[:-1], -1), dropout_p)
    return _mix_filtered(weights, v, aggregation, how)


def _mix_filtered(weights: Taps, v: Map, aggregation: Aggregation, geometry: str) -> Map:
    filters = None if aggregation.mul is None else _to_filters(aggregation.mul, v)
    return _OPERATORS.moving_mix(weights, v, filters, geometry)  # type: ignore[no-any-return]


def _attend_framed(
    terms: Terms, v: Map, geometry: Geometry, normalization: Normalization, aggregation: Aggregation, dropout_p: float
) -> Map:
    """Chunks that count the zeros outside the map: computed inside a map that is padded with zeros."""
    (height, width), lengths = v.shape[1:3], [size // 3 for size in geometry.kernel_size]
    after = [length + -size % length for size, length in zip((height, width), lengths, strict=True)]
    how = write_geometry(replace(geometry, border="mask"))

    def frame(x: Tensor) -> Tensor:
        return pad(x, (0, 0, 0, 0, lengths[1], after[1], lengths[0], after[0]))

    def crop(x: Tensor) -> Tensor:
        return x[:, lengths[0] : lengths[0] + height, lengths[1] : lengths[1] + width]

    framed, (q, k) = frame(v), (None if x is None else frame(x) for x in (terms.q, terms.k))
    logits = _make_logits(terms._replace(q=q, k=k), framed, how)
    weights = dropout(normalization(crop(logits), None).expand(*v.shape[:-1], -1), dropout_p)
    return crop(_mix_filtered(frame(weights), framed, aggregation, how))


def mix_windows(
    weights: Float[Tensor, "batch windows #heads queries taps"],
    values: Float[Tensor, "batch windows taps heads head_dim"],
    aggregation: Aggregation,
    window: tuple[int, int],
) -> Float[Tensor, "batch windows queries heads head_dim"]:
    """Apply weights times a filter to the values of windows; images that share filters are computed together."""
    assert aggregation.mul is not None
    rows, columns = window
    images = len(aggregation.mul)
    v = values.reshape(images, -1, columns, *values.shape[-2:])
    taps = weights.expand(-1, -1, v.shape[3], -1, -1).transpose(2, 3).reshape(*v.shape[:-1], rows * columns)
    mixed = _mix_filtered(taps, v, aggregation, write_geometry(Geometry("window", window)))
    return mixed.view(values.shape)


def _to_filters(table: Float[Tensor, "#batch ghosts offsets"], v: Map) -> Filters:
    """Repeat the filter of each ghost for all of its channels."""
    batch, heads, head_dim = len(v), *v.shape[-2:]
    filters = table.unflatten(1, (heads, -1))
    filters = filters.repeat_interleave(head_dim // filters.shape[2], dim=2).transpose(2, 3)
    return _expand(filters.to(v.dtype), batch)


def convolve(table: Float[Tensor, "#batch heads offsets"], v: Map, geometry: Geometry, outside: Outside) -> Map:  # noqa: ARG001
    """Apply a static filter for each head; values outside the map are zero, counted or not."""
    heads, head_dim = v.shape[-2:]
    joined = max(n for n in range(1, heads + 1) if heads % n == 0 and (n == 1 or n * head_dim <= WIDTH))
    wide = v.flatten(-2).unflatten(-1, (heads // joined, -1))
    filters = table[..., None].expand(-1, -1, -1, head_dim).unflatten(1, (-1, joined)).transpose(2, 3).flatten(3)
    ones = v.new_ones(1, 1, 1, 1, geometry.num_taps).expand(*wide.shape[:-1], -1)
    mixed = _OPERATORS.moving_mix(ones, wide, _expand(filters.to(v.dtype), len(v)), write_geometry(geometry))
    return mixed.reshape(v.shape)  # type: ignore[no-any-return]
