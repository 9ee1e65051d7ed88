"""Sliding windows by a loop over offsets, which needs the least memory.

It has `dot`, `mix` and `reverse`, and fused attention that never stores the weights. Fused attention computes the
logits of one tap at a time, in two loops over the taps in each of the forward and backward passes.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from paradigms.constants import load_constants
from paradigms.functional import Array, Geometry, Terms, list_taps
from paradigms.kernels.problem import Map, Normalizer, Operands, PerQuery, Problem, lse_dtype, to_operands

Area = tuple[slice, slice, slice]


def _areas(shape: torch.Size, geometry: Geometry) -> Iterator[tuple[int, Area, Area]]:
    """Each tap, the queries whose tap lies inside the map (batch, height, width, ...), and the pixels at that tap."""
    for tap in range(geometry.num_taps):
        here, there = [slice(None)], [slice(None)]
        for dim, index in enumerate(divmod(tap, geometry.kernel_size[1])):
            length = shape[dim + 1]
            move = (index - geometry.kernel_size[dim] // 2) * geometry.dilation[dim]
            first, stop = max(0, -move), min(length, length - move)
            here.append(slice(first, max(first, stop)))
            there.append(slice(first + move, max(first, stop) + move))
        yield tap, (here[0], here[1], here[2]), (there[0], there[1], there[2])


def dot(a: Tensor, b: Tensor, filters: Tensor | None, geometry: Geometry) -> Tensor:
    """Two maps (batch, height, width, heads, head_dim) to (batch, height, width, heads, taps)."""
    out = a.new_zeros(*a.shape[:-1], geometry.num_taps)
    for tap, here, there in _areas(a.shape, geometry):
        products = _filter(a[here].to(lse_dtype(a)), filters, tap) * b[there]
        out[here][..., tap] = products.sum(dim=-1)
    return out


def mix(weights: Tensor, v: Tensor, filters: Tensor | None, geometry: Geometry) -> Tensor:
    """(batch, height, width, heads, taps) and (batch, height, width, heads, head_dim) to the latter."""
    out = torch.zeros(v.shape, dtype=lse_dtype(v), device=v.device)
    for tap, here, there in _areas(v.shape, geometry):
        out[here].addcmul_(weights[here][..., tap, None].to(out.dtype), _filter(v[there].to(out.dtype), filters, tap))
    return out.to(v.dtype)


def _filter(x: Tensor, filters: Tensor | None, tap: int) -> Tensor:
    return x if filters is None else x * filters[:, None, None, :, tap]


def correlate(weights: Tensor, a: Tensor, b: Tensor, geometry: Geometry) -> Tensor:
    """The gradient of the filters, (batch, heads, taps, head_dim)."""
    out = a.new_zeros(len(a), a.shape[3], geometry.num_taps, a.shape[4])
    weights, a, b = weights.contiguous(), a.contiguous(), b.contiguous()  # the layout decides torch's order of sums
    for tap, here, there in _areas(a.shape, geometry):
        products = a[here].to(lse_dtype(a)) * b[there] * weights[here][..., tap, None]
        out[:, :, tap] = products.sum(dim=(1, 2))
    return out


def reverse(weights: Tensor, geometry: Geometry) -> Tensor:
    """(batch, height, width, heads, taps) to the same."""
    out = torch.zeros_like(weights, memory_format=torch.contiguous_format)
    for tap, here, there in _areas(weights.shape, geometry):
        out[here][..., tap] = weights[there][..., geometry.num_taps - 1 - tap]
    return out


def list_counted(geometry: Geometry, height: int, width: int) -> tuple[Bool[Array, "height width offsets"]]:
    """Which rows of a position table each query counts as taps."""
    _, valid, offset = list_taps(geometry, height, width)
    counted = np.zeros((height * width, geometry.num_offsets), dtype=bool)
    counted[np.nonzero(valid)[0], offset[valid]] = True
    return (counted.reshape(height, width, -1),)


def counted_taps(
    geometry: Geometry, height: int, width: int, device: torch.device
) -> Bool[Tensor, "height width offsets"] | None:
    """`list_counted` as a tensor; None if each query counts all taps."""
    if geometry.border == "zero":
        return None
    (counted,) = load_constants(list_counted, geometry, height, width, device=device)
    return counted  # type: ignore[no-any-return]


class _Tap(NamedTuple):
    """One offset with its logits.

    Attributes:
        row: its row in the position tables.
        here: queries that have a pixel at this offset.
        there: these pixels.
        logits: of every query; -inf where the tap is not counted.
        kept: factors of dropout: 0 or 1 / (1 - p).
    """

    row: int
    here: Area
    there: Area
    logits: PerQuery
    kept: PerQuery | float


def _widen(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.to(lse_dtype(x))


def _zeros(x: Tensor | None) -> Tensor | None:
    return None if x is None else torch.zeros_like(x, memory_format=torch.contiguous_format)


def _open(problem: Problem) -> Problem:
    """Convert the operands to the dtype of the sums."""
    q, k, rk, rq, rb, scale = problem.terms
    terms = Terms(_widen(q), _widen(k), _widen(rk), _widen(rq), _widen(rb), scale)
    return problem._replace(terms=terms, v=problem.v.to(lse_dtype(problem.v)))


def _loop(problem: Problem) -> Iterator[_Tap]:
    """Loop over the offsets; every loop drops the same weights."""
    terms, v, geometry, _, dropout = problem
    counted = counted_taps(geometry, v.shape[1], v.shape[2], v.device)
    generator = None if dropout is None else torch.Generator(v.device).manual_seed(dropout.seed)
    for row, here, there in _areas(v.shape, replace(geometry, kernel_size=geometry.offset_span)):
        logits = _make_logits(terms, v, row, here, there)
        if counted is not None:
            logits.masked_fill_(~counted[..., row, None], -math.inf)
        kept: Tensor | float = 1.0
        if dropout is not None:
            draws = torch.rand(logits.shape, generator=generator, device=v.device)
            kept = (draws >= dropout.p).to(v.dtype) / (1 - dropout.p)
        yield _Tap(row, here, there, logits, kept)


def _sum_factors(terms: Terms, row: int, here: Area) -> Tensor | None:
    """The sum of the factors of k in the logits, scale * q + r^q; None if no term has keys."""
    factor = None if terms.scale is None or terms.q is None else terms.scale * terms.q[here]
    if terms.rq is None:
        return factor
    return terms.rq[:, row] if factor is None else factor + terms.rq[:, row]


def _make_logits(terms: Terms, v: Map, row: int, here: Area, there: Area) -> PerQuery:
    logits = v.new_zeros(v.shape[:-1])
    if terms.rk is not None and terms.q is not None:
        logits += (terms.q * terms.rk[:, row]).sum(dim=-1)
    if terms.rb is not None:
        logits += terms.rb[:, row]
    factor = _sum_factors(terms, row, here)
    if factor is not None and terms.k is not None:
        logits[here] += (factor * terms.k[there]).sum(dim=-1)
    return logits


def attention(problem: Problem) -> tuple[Map, Normalizer]:
    """The output and the normalizer of the softmax."""
    dtype, problem = problem.v.dtype, _open(problem)
    top = problem.v.new_full(problem.v.shape[:-1], -math.inf)
    for tap in _loop(problem):
        top = torch.maximum(top, tap.logits)
    out, total = torch.zeros(problem.v.shape, dtype=top.dtype, device=top.device), torch.zeros_like(top)
    for tap in _loop(problem):
        weights = (tap.logits - top).exp_()
        total += weights
        out[tap.here].addcmul_((weights * tap.kept)[tap.here][..., None], problem.v[tap.there])
    out /= total[..., None]
    return out.to(dtype), torch.stack([top, total], dim=-1)


def attention_backward(grad: Map, normalizer: Normalizer, problem: Problem) -> Operands:
    """The gradients of the operands, given the gradient of the output."""
    given, problem, grad = problem, _open(problem), grad.to(normalizer.dtype)
    top, total = normalizer.unbind(dim=-1)
    terms, v, *_ = problem
    to_v, mean = torch.zeros(v.shape, dtype=v.dtype, device=v.device), torch.zeros_like(top)
    to = Operands(_zeros(terms.q), _zeros(terms.k), to_v, _zeros(terms.rk), _zeros(terms.rq), _zeros(terms.rb))
    for tap in _loop(problem):
        weights = (tap.logits - top).exp_().div_(total)
        mean[tap.here] += (weights * tap.kept)[tap.here] * (grad[tap.here] * v[tap.there]).sum(dim=-1)
    for tap in _loop(problem):
        weights = (tap.logits - top).exp_().div_(total)
        kept = weights * tap.kept
        to_v[tap.there].addcmul_(kept[tap.here][..., None], grad[tap.here])
        grad_logits = weights.mul_(mean).neg_()
        grad_logits[tap.here] += kept[tap.here] * (grad[tap.here] * v[tap.there]).sum(dim=-1)
        _add_gradients(terms, to, tap, grad_logits)
    return round_once(to, given)


def _add_gradients(terms: Terms, to: Operands, tap: _Tap, grad_logits: PerQuery) -> None:
    """Add the gradients of the operands of one tap's logits."""
    row, here, there, *_ = tap
    inside = grad_logits[here][..., None]
    if to.rb is not None:
        to.rb[:, row] = grad_logits.sum(dim=(0, 1, 2))
    if to.rk is not None and to.q is not None and terms.q is not None and terms.rk is not None:
        to.rk[:, row] = (grad_logits[..., None] * terms.q).sum(dim=(0, 1, 2))
        to.q.addcmul_(grad_logits[..., None], terms.rk[:, row])
    if to.rq is not None and terms.k is not None:
        to.rq[:, row] = (inside * terms.k[there]).sum(dim=(0, 1, 2))
    if terms.scale is not None and to.q is not None and terms.k is not None:
        to.q[here].addcmul_(inside, terms.k[there], value=terms.scale)
    factor = _sum_factors(terms, row, here)
    if factor is not None and to.k is not None:
        to.k[there].addcmul_(inside, factor)


def round_once(gradients: Operands, problem: Problem) -> Operands:
    """Round gradients to the dtypes of the operands, once."""
    pairs = zip(gradients, to_operands(problem), strict=True)
    return Operands(*(None if x is None or of is None else x.to(of.dtype) for x, of in pairs))
