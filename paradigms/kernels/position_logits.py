"""Logits of position terms, q·r^k + r^q·k + r^b, as one compiled operator: taps whose offset depends on the query.

Strict Hadamard attention (Eq. 7 of arXiv:2112.12786) uses all channels of a map for every head. The products of
`moving` would multiply each table by a map of ones; here the tables are multiplied with the map directly.

The sum L(q, k; r^k, r^q, r^b) is linear in the maps and in the tables. Its transpose computes all five gradients. The
derivatives of the transpose are again L and its transpose, so that both can be differentiated to any order.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from paradigms.functional import Terms, gather_taps, make_logits, make_neighbors
from paradigms.kernels import cpu
from paradigms.kernels.fused import Shape, read_geometry
from paradigms.kernels.problem import lse_dtype
from paradigms.kernels.transforms import register_composition


@torch.library.custom_op("paradigms::position_logits", mutates_args=())
def _logits(q: Tensor, k: Tensor, rk: Tensor, rq: Tensor, rb: Tensor, geometry: str) -> Tensor:
    return cpu.position_logits(Terms(q, k, rk, rq, rb, None), read_geometry(geometry))


@torch.library.custom_op("paradigms::position_logits_backward", mutates_args=())
def _backward(
    grad: Tensor, q: Tensor, k: Tensor, rk: Tensor, rq: Tensor, rb: Tensor, geometry: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    terms = Terms(q, k, rk, rq, rb, None)
    dq, dk, drk, drq, drb = cpu.position_logits_backward(grad, terms, read_geometry(geometry))
    return dq, dk, drk, drq, drb


@_logits.register_fake
def _(q: Tensor, k: Tensor, rk: Tensor, rq: Tensor, rb: Tensor, geometry: str) -> Tensor:  # noqa: ARG001
    return q.new_empty(*q.shape[:3], len(rb), read_geometry(geometry).num_taps)


@_backward.register_fake
def _(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:  # noqa: ARG001
    return tuple(x.new_empty(x.shape) for x in inputs[:-1])


_OPERATORS = torch.ops.paradigms


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001 - torch's signature
    *tensors, ctx.how = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_OPERATORS.position_logits_backward(grad, *ctx.saved_tensors, ctx.how), None


def _differentiate_backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    """The derivatives of Σ grad · (L(d_q, d_k; r^k, r^q, d_rb) + L(q, k; d_rk, d_rq, 0))."""
    (grad, q, k, rk, rq, rb), (dq, dk, drk, drq, drb) = ctx.saved_tensors, grads
    by_grad = _OPERATORS.position_logits(dq, dk, rk, rq, drb, ctx.how)
    by_grad = by_grad + _OPERATORS.position_logits(q, k, drk, drq, torch.zeros_like(rb), ctx.how)
    by_q, by_k, *_ = _OPERATORS.position_logits_backward(grad, q, k, drk, drq, rb, ctx.how)
    _, _, by_rk, by_rq, _ = _OPERATORS.position_logits_backward(grad, dq, dk, rk, rq, rb, ctx.how)
    return by_grad, by_q, by_k, by_rk, by_rq, None, None


_logits.register_autograd(_differentiate, setup_context=_keep)
_backward.register_autograd(_differentiate_backward, setup_context=_keep)


def _compose(*inputs: Any) -> Tensor:
    """The same by plain operations of torch, with gathered keys."""
    *tensors, geometry = inputs
    q, k, rk, rq, rb = (x.to(lse_dtype(x)) for x in tensors)
    index, _, offset = make_neighbors(read_geometry(geometry), q.shape[1], q.shape[2], q.device)
    logits = make_logits(Terms(q, k, rk, rq, rb, None), gather_taps(k, None, index), offset)  # (B, heads, N, K)
    return logits.transpose(1, 2).unflatten(1, q.shape[1:3]).to(tensors[0].dtype)  # type: ignore[no-any-return]


def _compose_backward(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    *tensors, geometry = inputs
    return torch.func.vjp(lambda *given: _compose(*given, geometry), *tensors)[1](grad)  # type: ignore[no-any-return]


register_composition(_logits, _compose)
register_composition(_backward, _compose_backward, batches_gradients=True)


@register_flop_formula(_OPERATORS.position_logits)
def _count_flops(q: Shape, *inputs: Any, **_out: object) -> int:
    """Two per multiply-add of q·r^k and of r^q·k."""
    (heads, _), geometry = inputs[-2:]
    return 4 * torch.Size(q).numel() * heads * read_geometry(geometry).num_taps  # type: ignore[no-any-return]


@register_flop_formula(_OPERATORS.position_logits_backward)
def _count_flops_of_backward(grad: object, *inputs: Any, **_out: object) -> int:  # noqa: ARG001
    return 2 * _count_flops(*inputs)


def are_position_terms(terms: Terms) -> bool:
    """Whether these are the three position terms alone, and all heads use all channels of the map."""
    q, k, rk, rq, rb, scale = terms
    if scale is not None or q is None or k is None or rk is None or rq is None or rb is None:
        return False
    return q.shape == k.shape and q.shape[3] == 1 and len(rk) == len(rq) == len(rb) > 1


def add_position_terms(terms: Terms, geometry: str) -> Tensor:
    """q·r^k + r^q·k + r^b for each head and tap."""
    return _OPERATORS.position_logits(*terms[:-1], geometry)  # type: ignore[no-any-return]
