"""Compiled kernels for taps whose offset depends on their query: the border `shift`, and whole chunks.

Four products carry them, as three do those of `primitive`. With filters m, a row for each offset, and c(i, o) the key
of tap o of query i, at offset δ(i, o):

    dot(a, b)[i, o] = Σ_c a_{i,c} m_{δ,c} b_{c(i,o),c}       mix(w, v)[i] = Σ_o w_{i,o} m_δ v_{c(i,o)}
    spread(w, a)[j] = Σ_{c(i,o)=j} w_{i,o} m_δ a_i           correlate(w, a, b)[δ] = Σ_{i,o at δ} w_{i,o} a_i b_{c(i,o)}

All are derivatives of Σ w m a b, so that each is differentiated by the others, as often as one likes.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import dropout
from torch.utils.flop_counter import register_flop_formula

from paradigms.functional import Aggregation, Geometry, Normalization, Outside, Scores, Terms, make_neighbors
from paradigms.kernels import cpu, reference
from paradigms.kernels.case import Map
from paradigms.kernels.fused import Shape, read_geometry, write_geometry
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
"""Channels that the kernels compute together when heads share their weights: few fill no vector, many no cache."""


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch's signature
    """Each of the three is kept where a gradient by one of the others is asked for."""
    *operands, ctx.geometry = inputs
    needed = ctx.needs_input_grad[:3]
    others = (needed[1] or needed[2], needed[0] or needed[2], needed[0] or needed[1])
    ctx.save_for_backward(*(x if used else None for x, used in zip(operands, others, strict=True)))


def _backward_of_dot(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (a, b, filters), (of_a, of_b, of_filters, _) = ctx.saved_tensors, ctx.needs_input_grad
    to_a = _OPERATORS.moving_mix(grad, b, filters, ctx.geometry) if of_a else None
    to_b = _OPERATORS.moving_spread(grad, a, filters, ctx.geometry) if of_b else None
    return to_a, to_b, _OPERATORS.moving_correlate(grad, a, b, ctx.geometry) if of_filters else None, None


def _backward_of_mix(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (weights, v, filters), (of_weights, of_v, of_filters, _) = ctx.saved_tensors, ctx.needs_input_grad
    to_weights = _OPERATORS.moving_dot(grad, v, filters, ctx.geometry) if of_weights else None
    to_v = _OPERATORS.moving_spread(weights, grad, filters, ctx.geometry) if of_v else None
    to_filters = _OPERATORS.moving_correlate(weights, grad, v, ctx.geometry) if of_filters else None
    return to_weights, to_v, to_filters, None


def _backward_of_spread(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (weights, a, filters), (of_weights, of_a, of_filters, _) = ctx.saved_tensors, ctx.needs_input_grad
    to_weights = _OPERATORS.moving_dot(a, grad, filters, ctx.geometry) if of_weights else None
    to_a = _OPERATORS.moving_mix(weights, grad, filters, ctx.geometry) if of_a else None
    to_filters = _OPERATORS.moving_correlate(weights, a, grad, ctx.geometry) if of_filters else None
    return to_weights, to_a, to_filters, None


def _backward_of_correlate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (weights, a, b), (of_weights, of_a, of_b, _) = ctx.saved_tensors, ctx.needs_input_grad
    to_weights = _OPERATORS.moving_dot(a, b, grad, ctx.geometry) if of_weights else None
    to_a = _OPERATORS.moving_mix(weights, b, grad, ctx.geometry) if of_a else None
    return to_weights, to_a, _OPERATORS.moving_spread(weights, a, grad, ctx.geometry) if of_b else None, None


_dot.register_autograd(_backward_of_dot, setup_context=_keep)
_mix.register_autograd(_backward_of_mix, setup_context=_keep)
_spread.register_autograd(_backward_of_spread, setup_context=_keep)
_correlate.register_autograd(_backward_of_correlate, setup_context=_keep)


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
    """The second of the operands is a map in each of them."""
    products = 1 if third is None else 2
    return 2 * products * torch.Size(b).numel() * read_geometry(geometry).num_taps


def _expand(table: Tensor, batch: int) -> Filters:
    """Filters of every image; torch adds up the gradient of what images share."""
    return table.expand(batch, -1, -1, -1)


def _make_logits(terms: Terms, v: Map, geometry: str) -> Float[Tensor, "#batch height width heads taps"]:
    """Eq. 4's terms. Each table is a filter: with ones in the place of keys, of queries or of both."""
    q, k = (None if x is None else x.expand(-1, -1, -1, v.shape[3], -1) for x in (terms.q, terms.k))
    parts: list[Tensor] = []
    if terms.scale is not None:
        assert q is not None and k is not None
        parts.append(_OPERATORS.moving_dot(q * terms.scale, k, None, geometry))
    if terms.rk is not None and q is not None:
        parts.append(_OPERATORS.moving_dot(q, torch.ones_like(q), _expand(terms.rk[None], len(q)), geometry))
    if terms.rq is not None and k is not None:
        parts.append(_OPERATORS.moving_dot(torch.ones_like(k), k, _expand(terms.rq[None], len(k)), geometry))
    if terms.rb is not None:
        ones = v.new_ones(1, *v.shape[1:4], 1)
        parts.append(_OPERATORS.moving_dot(ones, ones, terms.rb[None, :, :, None].to(v.dtype), geometry))
    assert len(parts) > 0  # torch.compile cannot trace the truth of a list
    return sum(parts[1:], start=parts[0])


def _valid_taps(geometry: Geometry, v: Map) -> Bool[Tensor, "height width 1 taps"] | None:
    """Which taps each query counts; None where all count all."""
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
    """Eq. 4 of arXiv:2112.12786 by any normalization; the border `shift`, and chunks under `zero` and `mask`."""
    assert isinstance(scores, Terms)
    how = write_geometry(geometry)
    weights = normalization(_make_logits(scores, v, how), _valid_taps(geometry, v))
    weights = dropout(weights.expand(*v.shape[:-1], -1), dropout_p)
    if aggregation.mul is None:
        return _OPERATORS.moving_mix(weights, v, None, how)  # type: ignore[no-any-return]
    return _OPERATORS.moving_mix(weights, v, _to_filters(aggregation.mul, v), how)  # type: ignore[no-any-return]


def _to_filters(table: Float[Tensor, "#batch ghosts offsets"], v: Map) -> Filters:
    """A filter of each ghost for each of its channels."""
    batch, heads, head_dim = len(v), *v.shape[-2:]
    filters = table.unflatten(1, (heads, -1))
    filters = filters.repeat_interleave(head_dim // filters.shape[2], dim=2).transpose(2, 3)
    return _expand(filters.to(v.dtype), batch)


def convolve(table: Float[Tensor, "#batch heads offsets"], v: Map, geometry: Geometry, outside: Outside) -> Map:  # noqa: ARG001
    """A static filter for each head: what lies outside the map is zero, counted or not."""
    heads, head_dim = v.shape[-2:]
    joined = max(n for n in range(1, heads + 1) if heads % n == 0 and (n == 1 or n * head_dim <= WIDTH))
    wide = v.flatten(-2).unflatten(-1, (heads // joined, -1))
    filters = table[..., None].expand(-1, -1, -1, head_dim).unflatten(1, (-1, joined)).transpose(2, 3).flatten(3)
    ones = v.new_ones(1, 1, 1, 1, geometry.num_taps).expand(*wide.shape[:-1], -1)
    mixed = _OPERATORS.moving_mix(ones, wide, _expand(filters.to(v.dtype), len(v)), write_geometry(geometry))
    return mixed.reshape(v.shape)  # type: ignore[no-any-return]
