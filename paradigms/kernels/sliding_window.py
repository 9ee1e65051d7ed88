"""Sliding windows as a loop over offsets: views of a padded map, never K copies of its channels.

Three products carry everything. With `b` padded by the halo on each side, and b[i+o] its view moved by offset o:
`dot(a, b)[i, o] = a_i·b_{i+o}`, `mix(w, b)[i] = Σ_o w_{i,o} b_{i+o}`, `spread(w, a)[i+o] = Σ_o w_{i,o} a_i`. Their
gradients are each other, so that nothing but the inputs is kept for the backward pass.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import dropout, pad

from paradigms.functional import Aggregation, Geometry, Normalization, Outside, Terms, make_neighbors

Map = Float[Tensor, "batch height width heads head_dim"]
Padded = Float[Tensor, "batch padded_height padded_width heads head_dim"]
Taps = Float[Tensor, "batch height width heads taps"]
SharedTaps = Float[Tensor, "#batch #height #width heads taps"]


def _halo(geometry: Geometry) -> tuple[int, int]:
    """Rows and columns that the kernel reaches beyond its centre."""
    reach = [size // 2 * dilation for size, dilation in zip(geometry.kernel_size, geometry.dilation, strict=True)]
    return reach[0], reach[1]


def _views(padded: Tensor, geometry: Geometry) -> Iterator[Tensor]:
    """The map as each tap sees it, in the order of the taps."""
    halo = _halo(geometry)
    height, width = padded.shape[1] - 2 * halo[0], padded.shape[2] - 2 * halo[1]
    for row in range(geometry.kernel_size[0]):
        for column in range(geometry.kernel_size[1]):
            top, left = row * geometry.dilation[0], column * geometry.dilation[1]
            yield padded[:, top : top + height, left : left + width]


def _pad(x: Map, geometry: Geometry, outside: Float[Tensor, "heads head_dim"] | None) -> Padded:
    """Surround the map by what its outside carries."""
    down, across = _halo(geometry)
    sides = (0, 0, 0, 0, across, across, down, down)
    if outside is None:
        return pad(x, sides)
    inside = pad(torch.ones(x.shape[1:3], dtype=torch.bool, device=x.device), sides[4:])
    return torch.where(inside[..., None, None], pad(x, sides), outside.to(x.dtype))


def _dot(a: Map, b: Padded, geometry: Geometry, shape: Sequence[int]) -> SharedTaps:
    """Summed over the axes that `shape` (batch, height, width, heads) shares, tap by tap."""
    out = a.new_empty(*shape, geometry.num_taps)
    for tap, view in enumerate(_views(b, geometry)):
        out[..., tap] = (a * view).sum(dim=-1).sum_to_size(shape)
    return out


def _mix(weights: SharedTaps, b: Padded, geometry: Geometry) -> Map:
    out = torch.zeros_like(next(_views(b, geometry)), memory_format=torch.contiguous_format)
    for tap, view in enumerate(_views(b, geometry)):
        out.addcmul_(weights[..., tap, None], view)
    return out


def _spread(weights: SharedTaps, a: Map, geometry: Geometry) -> Padded:
    down, across = _halo(geometry)
    batch, height, width, heads, head_dim = a.shape
    out = a.new_zeros(batch, height + 2 * down, width + 2 * across, heads, head_dim)
    for tap, view in enumerate(_views(out, geometry)):
        view.addcmul_(weights[..., tap, None], a)
    return out


class _Dot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.geometry = geometry
        return _dot(a, b, geometry, a.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        a, b = ctx.saved_tensors
        return _mix(grad, b, ctx.geometry), _spread(grad, a, ctx.geometry), None


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, b: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(weights, b)
        ctx.geometry = geometry
        return _mix(weights, b, geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        weights, b = ctx.saved_tensors
        return _dot(grad, b, ctx.geometry, weights.shape[:-1]), _spread(weights, grad, ctx.geometry), None


class _Align(torch.autograd.Function):
    """aligned[i, o] = scores[i+o, o]: what each key says to a tap, brought to the query that has this tap."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, geometry: Geometry) -> Tensor:
        ctx.shape, ctx.geometry = scores.shape, geometry
        return torch.stack([view[..., tap] for tap, view in enumerate(_views(scores, geometry))], dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        out = grad.new_zeros(ctx.shape)
        for tap, view in enumerate(_views(out, ctx.geometry)):
            view[..., tap] = grad[..., tap]
        return out, None


def neighborhood_dot(a: Map, b: Padded, geometry: Geometry) -> Taps:
    """dot(a, b)[i, o] = a_i·b_{i+o}; `b` is padded by the halo."""
    return _Dot.apply(a, b, geometry)  # type: ignore[no-any-return]


def neighborhood_mix(weights: SharedTaps, b: Padded, geometry: Geometry) -> Map:
    """mix(w, b)[i] = Σ_o w_{i,o} b_{i+o}; `b` is padded by the halo, and weights may be shared by a batch or a map."""
    return _Mix.apply(weights, b, geometry)  # type: ignore[no-any-return]


def align_taps(scores: Tensor, geometry: Geometry) -> Taps:
    """aligned[i, o] = scores[i+o, o]; `scores` (batch, height, width, heads, taps) is padded by the halo."""
    return _Align.apply(scores, geometry)  # type: ignore[no-any-return]


def _make_logits(terms: Terms, geometry: Geometry, outside: Outside) -> Float[Tensor, "#batch #h #w heads taps"]:
    padded = None if terms.k is None else _pad(terms.k, geometry, outside.k)
    parts: list[Tensor] = []
    if terms.scale is not None:
        assert terms.q is not None and padded is not None
        parts.append(neighborhood_dot(terms.q * terms.scale, padded, geometry))
    if terms.rk is not None:
        assert terms.q is not None
        parts.append(torch.einsum("byxhd,hkd->byxhk", terms.q, terms.rk))
    if terms.rq is not None:
        assert padded is not None
        parts.append(align_taps(torch.einsum("byxhd,hkd->byxhk", padded, terms.rq), geometry))
    if terms.rb is not None:
        parts.append(terms.rb[None, None, None])
    assert parts
    return sum(parts[1:], start=parts[0])


def _valid_taps(geometry: Geometry, v: Map) -> Bool[Tensor, "height width 1 taps"] | None:
    if geometry.border != "mask":
        return None
    height, width = v.shape[1:3]
    return make_neighbors(geometry, height, width, v.device).valid.view(height, width, 1, -1)


def attend(
    terms: Terms,
    v: Map,
    geometry: Geometry,
    normalization: Normalization,
    aggregation: Aggregation,  # noqa: ARG001 - the support mapping admits the weighted sum alone
    outside: Outside,
    dropout_p: float,
) -> Map:
    """Eq. 4 of arXiv:2112.12786 over the area centred on each query."""
    logits = _make_logits(terms, geometry, outside)
    weights = normalization(logits, _valid_taps(geometry, v))
    if dropout_p:
        weights = dropout(weights.expand(*v.shape[:-1], -1), dropout_p)
    return neighborhood_mix(weights, _pad(v, geometry, outside.v), geometry)
