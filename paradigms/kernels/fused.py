"""Softmax attention with every term of Eq. 4 (arXiv:2112.12786) as one custom operator of torch.

It saves its inputs and two numbers per query and head, `problem.Normalizer`, and recomputes the weights in the backward
pass. A backend is a module with two functions, `attention` and `attention_backward`.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from paradigms.functional import Geometry, Outside, Terms
from paradigms.kernels import cpu, halo, reference
from paradigms.kernels.problem import Dropout, FusedBackend, Map, Operands, Problem, lse_dtype, to_operands
from paradigms.kernels.transforms import register_composition


def _load_triton() -> FusedBackend:
    from paradigms.kernels.triton_kernels import attention

    return attention


BACKENDS: dict[str, Callable[[], FusedBackend]] = {
    "torch": lambda: halo,
    "cpu": lambda: cpu,
    "triton": _load_triton,
}
"""The modules by backend. Triton is imported on first use, since it may not be installed."""

NUM_OPERANDS = len(Operands._fields)


def _to_problem(
    operands: Operands,
    seed: Tensor | None,
    dropout_p: float,
    scale: float | None,
    geometry: str,
) -> Problem:
    q, k, v, rk, rq, rb, outside_k, outside_v = operands
    assert v is not None
    dropout = None if seed is None else Dropout(dropout_p, int(seed))
    return Problem(Terms(q, k, rk, rq, rb, scale), v, read_geometry(geometry), Outside(outside_k, outside_v), dropout)


def write_geometry(geometry: Geometry) -> str:
    """Write a geometry as one string. torch's overhead grows with the square of the number of arguments."""
    kind, border = geometry.kind, geometry.border
    return " ".join(map(str, (kind, *geometry.kernel_size, *geometry.dilation, border, *geometry.shift)))


@lru_cache(maxsize=64)
def read_geometry(text: str) -> Geometry:
    """The inverse of `write_geometry`."""
    kind, rows, columns, down, across, border, *shift = text.split()
    kernel_size, dilation = (int(rows), int(columns)), (int(down), int(across))
    return Geometry(kind, kernel_size, dilation, border, (int(shift[0]), int(shift[1])))


@torch.library.custom_op("paradigms::attention", mutates_args=())
def _attention(
    q: Tensor | None,
    k: Tensor | None,
    v: Tensor,
    rk: Tensor | None,
    rq: Tensor | None,
    rb: Tensor | None,
    outside_k: Tensor | None,
    outside_v: Tensor | None,
    seed: Tensor | None,
    dropout_p: float,
    scale: float | None,
    geometry: str,
    backend: str,
) -> tuple[Tensor, Tensor]:
    operands = Operands(q, k, v, rk, rq, rb, outside_k, outside_v)
    return BACKENDS[backend]().attention(_to_problem(operands, seed, dropout_p, scale, geometry))


@torch.library.custom_op("paradigms::attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor,
    normalizer: Tensor,
    q: Tensor | None,
    k: Tensor | None,
    v: Tensor,
    rk: Tensor | None,
    rq: Tensor | None,
    rb: Tensor | None,
    outside_k: Tensor | None,
    outside_v: Tensor | None,
    seed: Tensor | None,
    dropout_p: float,
    scale: float | None,
    geometry: str,
    backend: str,
) -> list[Tensor]:
    """The gradients of the operands that are present, in their order."""
    operands = Operands(q, k, v, rk, rq, rb, outside_k, outside_v)
    problem = _to_problem(operands, seed, dropout_p, scale, geometry)
    return [x for x in BACKENDS[backend]().attention_backward(grad, normalizer, problem) if x is not None]


@_attention.register_fake
def _(q: object, k: object, v: Tensor, *_: object) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    return v.new_empty(v.shape), v.new_empty(*v.shape[:-1], 2, dtype=lse_dtype(v))


@_attention_backward.register_fake
def _(grad: Tensor, normalizer: Tensor, *inputs: Any) -> list[Tensor]:  # noqa: ARG001
    return [operand.new_empty(operand.shape) for operand in inputs[:NUM_OPERANDS] if operand is not None]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.how = *inputs[: NUM_OPERANDS + 1], inputs[NUM_OPERANDS + 1 :]
    ctx.save_for_backward(output[1], *tensors)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    normalizer, *operands, seed = ctx.saved_tensors
    gradients: list[Tensor | None] = [None] * NUM_OPERANDS
    if grad is not None:
        made = iter(torch.ops.paradigms.attention_backward.default(grad, normalizer, *operands, seed, *ctx.how))
        gradients = [None if operand is None else next(made) for operand in operands]
    return *gradients, None, *(None for _ in ctx.how)


_attention.register_autograd(_backward, setup_context=_keep)


def _refuse(*_: object) -> None:
    raise NotImplementedError("fused attention has no second derivative; backend 'reference' has all of them")


_attention_backward.register_autograd(_refuse)


def _compose(*inputs: Any) -> tuple[Tensor, Tensor]:
    *operands, _, dropout_p, scale, geometry, _ = inputs
    problem = _to_problem(Operands(*operands), None, dropout_p, scale, geometry)
    return reference.attention(problem, dropout_p)


def _compose_backward(grad: Tensor, normalizer: Tensor, *inputs: Any) -> list[Tensor]:  # noqa: ARG001
    operands, how = inputs[:NUM_OPERANDS], inputs[NUM_OPERANDS:]
    if how[0] is not None:
        raise RuntimeError("the backward pass under dropout cannot be transformed by itself; use torch.func")
    there = [operand is not None for operand in operands]

    def call(*given: Tensor) -> Tensor:
        left = iter(given)
        return _compose(*(next(left) if is_there else None for is_there in there), *how)[0]

    found = torch.func.vjp(call, *(operand for operand in operands if operand is not None))
    return list(found[1](grad))


register_composition(_attention, _compose)
register_composition(_attention_backward, _compose_backward, batches_gradients=True)


Shape = Sequence[int]


@register_flop_formula(torch.ops.paradigms.attention)
def _flops(
    q: Shape | None,  # noqa: ARG001
    k: Shape | None,  # noqa: ARG001
    v: Shape,
    rk: Shape | None,
    rq: Shape | None,
    *others: Any,
    **__: object,
) -> int:
    """Two per multiply-add of the terms and of the weighted sum."""
    _rb, _outside_k, _outside_v, _seed, _dropout_p, scale, geometry, _backend = others
    products = 1 + sum(x is not None for x in (scale, rk, rq))
    return 2 * products * math.prod(v) * read_geometry(geometry).num_taps


@register_flop_formula(torch.ops.paradigms.attention_backward)
def _flops_of_backward(grad: object, normalizer: object, *inputs: Any, **__: object) -> int:  # noqa: ARG001
    """Twice the products of the forward pass, as in torch's own formulas; recomputed products do not count."""
    return 2 * _flops(*inputs)


def attend(problem: Problem, *, dropout_p: float, backend: str) -> Map:
    """Eq. 4 of arXiv:2112.12786 with softmax; if dropout is active, its seed is drawn from torch's generator."""
    terms, v, geometry, _, _ = problem
    assert all(x is None or x.shape == v.shape for x in (terms.q, terms.k))  # kernels read memory by the shape of v
    out, _normalizer = torch.ops.paradigms.attention.default(
        *to_operands(problem),
        torch.randint(2**62, (), device="cpu") if dropout_p else None,
        dropout_p,
        terms.scale,
        write_geometry(geometry),
        backend,
    )
    return out  # type: ignore[no-any-return]
