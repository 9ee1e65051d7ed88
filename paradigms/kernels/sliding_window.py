"""Sliding windows composed of dot, any normalization and mix; differentiable any number of times.

`dot` and `mix` read zeros outside the map. Under the border `project`, keys and values outside the map are constants b̄
and v̄. They are subtracted first, so that zeros are left outside, and added exactly:
dot(a, b) = dot(a, b - b̄) + a·b̄ and mix(w, v) = mix(w, v - v̄) + v̄ Σ_o w_o.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import conv2d, dropout

from paradigms.functional import (
    Aggregation,
    Geometry,
    Normalization,
    Outside,
    Scores,
    Terms,
    make_neighbors,
)
from paradigms.kernels import primitive
from paradigms.kernels.problem import Map

Taps = Float[Tensor, "batch height width heads taps"]
SharedTaps = Float[Tensor, "#batch #height #width #heads taps"]


def _remove(x: Map, outside: Float[Tensor, "heads head_dim"] | None) -> Map:
    return x if outside is None else x - outside.to(x.dtype)


def _make_key_logits(
    k: Float[Tensor, "batch height width #heads head_dim"],
    rq: Float[Tensor, "heads taps head_dim"],
    geometry: Geometry,
    backend: str,
) -> Taps:
    """The term r^q_o·k_{i+o} of each query i and tap o: computed at each key, then reordered by `reverse`."""
    by_key = torch.einsum("byxhd,hkd->byxhk", k, rq.flip(1))
    return primitive.reverse(by_key, geometry, backend=backend)


def _make_logits(terms: Scores, geometry: Geometry, outside: Outside, backend: str) -> SharedTaps:
    if not isinstance(terms, Terms):
        return terms
    q, k = terms.q, None if terms.k is None else _remove(terms.k, outside.k)
    parts: list[Tensor] = []
    if terms.scale is not None:
        assert q is not None and k is not None
        parts.append(primitive.dot(q * terms.scale, k, geometry, backend=backend))
        if outside.k is not None:
            parts.append(terms.scale * torch.einsum("byxhd,hd->byxh", q, outside.k.to(q.dtype))[..., None])
    if terms.rk is not None:
        assert q is not None
        parts.append(torch.einsum("byxhd,hkd->byxhk", q, terms.rk))
    if terms.rq is not None:
        assert k is not None
        parts.append(_make_key_logits(k, terms.rq, geometry, backend))
        if outside.k is not None:
            parts.append(torch.einsum("hkd,hd->hk", terms.rq, outside.k.to(terms.rq.dtype))[None, None, None])
    if terms.rb is not None:
        parts.append(terms.rb[None, None, None])
    assert len(parts) > 0  # torch.compile cannot trace bool(list)
    return sum(parts[1:], start=parts[0])


def _valid_taps(geometry: Geometry, v: Map) -> Bool[Tensor, "height width 1 taps"] | None:
    if geometry.border != "mask":
        return None
    height, width = v.shape[1:3]
    return make_neighbors(geometry, height, width, v.device).valid.view(height, width, 1, -1)


def _mix_shared(weights: Float[Tensor, "#batch 1 1 heads taps"], v: Map, geometry: Geometry) -> Map:
    """Apply weights that all pixels share as a depthwise convolution; all channels of a head have the same kernel.

    If each image has its own weights, images become further channels.
    """
    if not len(v):
        return v  # a convolution needs at least one channel
    images, head_dim = len(weights), v.shape[-1]
    kernel = weights.reshape(-1, 1, 1, *geometry.kernel_size).expand(-1, head_dim, -1, -1, -1).flatten(0, 1)
    halo = [size // 2 * step for size, step in zip(geometry.kernel_size, geometry.dilation, strict=True)]
    channels_first = v.flatten(3).permute(0, 3, 1, 2)
    stacked = channels_first if images == 1 else channels_first.flatten(0, 1)[None]
    mixed: Tensor = conv2d(stacked, kernel, padding=halo, dilation=geometry.dilation, groups=len(kernel))
    return mixed.view(channels_first.shape).permute(0, 2, 3, 1).reshape(v.shape)


def _mix(weights: SharedTaps, v: Map, outside: Outside, geometry: Geometry, backend: str) -> Map:
    inside = _remove(v, outside.v)
    if weights.shape[1:3] == (1, 1) and v.shape[1:3] != (1, 1):
        mixed = _mix_shared(weights, inside, geometry)
    else:
        mixed = primitive.mix(weights.expand(*v.shape[:-1], -1), inside, geometry, backend=backend)
    return mixed if outside.v is None else mixed + weights.sum(dim=-1, keepdim=True) * outside.v.to(v.dtype)


def _mix_filtered(
    weights: SharedTaps,
    v: Map,
    mul: Float[Tensor, "#batch ghosts taps"],
    outside: Outside,
    geometry: Geometry,
    backend: str,
) -> Map:
    """Apply weights times the filters of their head."""
    heads, head_dim = v.shape[-2:]
    filters = mul.unflatten(1, (heads, -1))
    filters = filters.repeat_interleave(head_dim // filters.shape[2], dim=2).transpose(2, 3)
    inside, weights = _remove(v, outside.v), weights.expand(*v.shape[:-1], -1)
    mixed = primitive.mix(weights, inside, geometry, filters=filters, backend=backend)
    if outside.v is None:
        return mixed
    carried = filters * outside.v.to(v.dtype)[:, None]
    return mixed + torch.einsum("byxhk,bhkd->byxhd", weights, carried.expand(len(v), -1, -1, -1))


def convolve(table: Float[Tensor, "#batch heads taps"], v: Map, geometry: Geometry, outside: Outside) -> Map:
    """Apply a static filter for each head."""
    return _mix(table[:, None, None], v, outside, geometry, "torch")


def attend(  # noqa: PLR0913 - the seam's arguments and the backend
    scores: Scores,
    v: Map,
    geometry: Geometry,
    normalization: Normalization,
    aggregation: Aggregation,
    outside: Outside,
    dropout_p: float,
    *,
    backend: str = "torch",
) -> Map:
    """Eq. 4 of arXiv:2112.12786 over the area centred on each query.

    Args:
        scores: the operands of the logits, or the logits.
        v: the values.
        geometry: a sliding window whose border is `zero`, `mask` or `project`.
        normalization: logits to weights.
        aggregation: the weighted sum, or weights times a filter.
        outside: keys and values outside the map under the border `project`.
        dropout_p: probability of dropping a weight.
        backend: the backend of `dot`, `mix` and `reverse`.
    """
    weights = normalization(_make_logits(scores, geometry, outside, backend), _valid_taps(geometry, v))
    if dropout_p:
        weights = dropout(weights.expand(*v.shape[:-1], -1), dropout_p)
    if aggregation.mul is None:
        return _mix(weights, v, outside, geometry, backend)
    return _mix_filtered(weights, v, aggregation.mul, outside, geometry, backend)
