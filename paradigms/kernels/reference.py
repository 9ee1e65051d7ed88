"""The backend `reference`: gathers K keys for every query. All other backends are compared with it.

`attention`, `dot`, `mix`, `spread`, `correlate` and `reverse` are the operators of `fused`, `primitive` and `moving`
in plain torch, which can differentiate them to any order.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import dropout

from paradigms.functional import (
    Aggregation,
    Geometry,
    Normalization,
    Outside,
    Scores,
    Terms,
    apply_weights,
    gather_taps,
    make_logits,
    make_neighbors,
    take_rows,
)
from paradigms.kernels.problem import Map, Normalizer, Problem, lse_dtype


def attend(
    scores: Scores,
    v: Float[Tensor, "batch height width heads head_dim"],
    geometry: Geometry,
    normalization: Normalization,
    aggregation: Aggregation,
    outside: Outside,
    dropout_p: float,
) -> Float[Tensor, "batch height width heads head_dim"]:
    """Eq. 4 of arXiv:2112.12786 over gathered taps, for any dtype; differentiable to any order."""
    index, valid, offset = make_neighbors(geometry, v.shape[1], v.shape[2], v.device)
    if isinstance(scores, Terms):
        keys = None if scores.k is None else gather_taps(scores.k, outside.k, index)
        logits = make_logits(scores, keys, offset)
    else:
        logits = scores.expand(*v.shape[:4], -1).flatten(1, 2).transpose(1, 2)
    weights = dropout(normalization(logits, valid).expand(len(v), -1, -1, -1), dropout_p)
    values = gather_taps(v, outside.v, index)
    return apply_weights(weights, values, aggregation, valid, offset).view_as(v)


def convolve(table: Float[Tensor, "#batch heads offsets"], v: Map, geometry: Geometry, outside: Outside) -> Map:
    """Apply a static filter for each head."""
    index, valid, offset = make_neighbors(geometry, v.shape[1], v.shape[2], v.device)
    filters = table.index_select(-1, offset.flatten()).unflatten(-1, offset.shape) * valid
    values = gather_taps(v, outside.v, index)
    return apply_weights(filters.expand(len(v), -1, -1, -1), values, Aggregation(), valid, offset).view_as(v)


class _Softmax:
    """Softmax that keeps its normalizer: the maximum of each query and the sum relative to it."""

    kind = "softmax"
    normalizer: Tensor

    def __call__(self, logits: Tensor, valid: Tensor | None) -> Tensor:
        """Normalize over the last axis."""
        if valid is not None:
            logits = logits.masked_fill(~valid, -math.inf)
        top = logits.detach().amax(dim=-1, keepdim=True)
        total = (logits - top).exp().sum(dim=-1, keepdim=True)
        self.normalizer = torch.cat([top, total], dim=-1)
        return logits.softmax(dim=-1)


def attention(problem: Problem, dropout_p: float) -> tuple[Map, Normalizer]:
    """Softmax attention and its normalizer. 16-bit operands are computed in float32; dropout uses torch's generator."""
    terms, v, geometry, outside, _ = problem
    softmax, wide = _Softmax(), lse_dtype(v)
    q, k, rk, rq, rb = (None if x is None else x.to(wide) for x in terms[:-1])
    out = attend(Terms(q, k, rk, rq, rb, terms.scale), v.to(wide), geometry, softmax, Aggregation(), outside, dropout_p)
    normalizer = softmax.normalizer.expand(len(v), -1, -1, -1).transpose(1, 2)  # (B, N, heads, 2)
    return out.to(v.dtype), normalizer.unflatten(1, v.shape[1:3])


def dot(a: Map, b: Map, filters: Tensor | None, geometry: Geometry) -> Tensor:
    """See `primitive.dot` and `moving`."""
    left, right = _widen(a).flatten(1, 2), _gather(b, geometry, filters)
    return torch.einsum("bnhd,bnkhd->bnhk", left, right).reshape(*a.shape[:-1], geometry.num_taps).to(a.dtype)


def mix(weights: Tensor, v: Map, filters: Tensor | None, geometry: Geometry) -> Map:
    """See `primitive.mix` and `moving`."""
    left, right = _widen(weights).flatten(1, 2), _gather(v, geometry, filters)
    return torch.einsum("bnhk,bnkhd->bnhd", left, right).reshape(v.shape).to(v.dtype)


def spread(weights: Tensor, a: Map, filters: Tensor | None, geometry: Geometry) -> Map:
    """See `moving`."""
    (batch, height, width, heads, head_dim), taps = a.shape, weights.flatten(1, 2)
    index, _, offset = make_neighbors(geometry, height, width, a.device)
    sent = torch.einsum("bnhk,bnhd->bnkhd", _widen(taps), _widen(a).flatten(1, 2))
    if filters is not None:
        sent = sent * _take_filters(filters, offset)
    received = sent.new_zeros(batch, height * width + 1, heads, head_dim)  # the last row collects taps outside the map
    received = received.index_add(1, index.flatten(), sent.flatten(1, 2))
    return received[:, :-1].reshape(a.shape).to(a.dtype)


def correlate(weights: Tensor, a: Map, b: Map, geometry: Geometry) -> Tensor:
    """See `primitive.correlate` and `moving`."""
    index, _, offset = make_neighbors(geometry, a.shape[1], a.shape[2], a.device)
    maps = _widen(weights).flatten(1, 2), _widen(a).flatten(1, 2), gather_taps(_widen(b), None, index)
    by_tap = torch.einsum("bnhk,bnhd,bnkhd->bnkhd", *maps).flatten(1, 2)
    filters = by_tap.new_zeros(len(by_tap), geometry.num_offsets, *by_tap.shape[2:])
    return filters.index_add(1, offset.flatten(), by_tap).transpose(1, 2).to(a.dtype)


def reverse(weights: Tensor, geometry: Geometry) -> Tensor:
    """See `primitive.reverse`."""
    height, width, num_taps = weights.shape[1], weights.shape[2], geometry.num_taps
    index = make_neighbors(geometry, height, width, weights.device).index
    opposite = num_taps - 1 - torch.arange(num_taps, device=weights.device)
    by_query = weights.flatten(1, 2).transpose(2, 3).flatten(1, 2)  # (B, N taps, heads)
    by_query = torch.cat([by_query, by_query.new_zeros(len(by_query), num_taps, by_query.shape[2])], dim=1)
    by_key = take_rows(by_query, index * num_taps + opposite)
    return by_key.transpose(2, 3).reshape(weights.shape)


def _gather(x: Map, geometry: Geometry, filters: Tensor | None) -> Float[Tensor, "batch queries taps heads head_dim"]:
    """Gather the neighbors of every query, times the filter of their offset; zeros outside the map."""
    index, _, offset = make_neighbors(geometry, x.shape[1], x.shape[2], x.device)
    keys = gather_taps(_widen(x), None, index)
    return keys if filters is None else keys * _take_filters(filters, offset)


def _take_filters(filters: Float[Tensor, "batch heads offsets head_dim"], offset: Tensor) -> Tensor:
    return take_rows(_widen(filters).transpose(1, 2), offset)


def _widen(x: Tensor) -> Tensor:
    return x.to(lse_dtype(x))
