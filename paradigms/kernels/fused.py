"""Softmax attention with every term of Eq. 4 (arXiv:2112.12786) as one operator of torch.

It keeps its inputs and one number a query, the logarithm of the softmax's denominator, and makes the weights again in
the backward pass. A backend is a module with two functions, `attention` and `attention_backward`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from paradigms.functional import Geometry, Outside, Terms
from paradigms.kernels.case import Case, Dropout, FusedBackend, Map, lse_dtype, to_operands


def _load_torch() -> FusedBackend:
    from paradigms.kernels import halo

    return halo


def _load_cpu() -> FusedBackend:
    from paradigms.kernels import cpu

    return cpu


def _load_triton() -> FusedBackend:
    from paradigms.kernels.triton_kernels import attention

    return attention


BACKENDS: dict[str, Callable[[], FusedBackend]] = {"torch": _load_torch, "cpu": _load_cpu, "triton": _load_triton}
"""Where the modules come from, imported when they are first used: Triton is not installed everywhere."""


def _to_case(
    operands: Sequence[Tensor],
    names: str,
    seed: Tensor | None,
    dropout_p: float,
    scale: float | None,
    kind: str,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    border: str,
    shift: Sequence[int],
) -> Case:
    given = dict(zip(names.split(), operands, strict=True))
    geometry = Geometry(kind, _pair(kernel_size), _pair(dilation), border, _pair(shift))
    q, k, rk, rq, rb = (given.get(name) for name in ("q", "k", "rk", "rq", "rb"))
    terms = Terms(q, k, rk, rq, rb, scale)
    outside = Outside(given.get("outside_k"), given.get("outside_v"))
    return Case(terms, given["v"], geometry, outside, None if seed is None else Dropout(dropout_p, int(seed)))


def _pair(size: Sequence[int]) -> tuple[int, int]:
    return size[0], size[1]


@torch.library.custom_op("paradigms::attention", mutates_args=())
def _attention(
    operands: Sequence[Tensor],
    names: str,
    seed: Tensor | None,
    dropout_p: float,
    scale: float | None,
    kind: str,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    border: str,
    shift: Sequence[int],
    backend: str,
) -> tuple[Tensor, Tensor]:
    case = _to_case(operands, names, seed, dropout_p, scale, kind, kernel_size, dilation, border, shift)
    return BACKENDS[backend]().attention(case)


@torch.library.custom_op("paradigms::attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor,
    lse: Tensor,
    operands: Sequence[Tensor],
    names: str,
    seed: Tensor | None,
    dropout_p: float,
    scale: float | None,
    kind: str,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    border: str,
    shift: Sequence[int],
    backend: str,
) -> list[Tensor]:
    case = _to_case(operands, names, seed, dropout_p, scale, kind, kernel_size, dilation, border, shift)
    gradients = BACKENDS[backend]().attention_backward(grad, lse, case)._asdict()
    return [gradients[name] for name in names.split()]


@_attention.register_fake
def _(operands: Sequence[Tensor], names: str, *_: object) -> tuple[Tensor, Tensor]:
    v = operands[names.split().index("v")]
    return v.new_empty(v.shape), v.new_empty(v.shape[:-1], dtype=lse_dtype(v))


@_attention_backward.register_fake
def _(grad: Tensor, lse: Tensor, operands: Sequence[Tensor], *_: object) -> list[Tensor]:  # noqa: ARG001
    return [operand.new_empty(operand.shape) for operand in operands]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    operands, ctx.names, seed, *ctx.how = inputs
    ctx.save_for_backward(output[1], seed, *operands)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    lse, seed, *operands = ctx.saved_tensors
    gradients = [None] * len(operands)
    if grad is not None:
        gradients = torch.ops.paradigms.attention_backward(grad, lse, operands, ctx.names, seed, *ctx.how)
    return gradients, None, None, *(None for _ in ctx.how)


_attention.register_autograd(_backward, setup_context=_keep)


def _refuse(*_: object) -> None:
    raise NotImplementedError("fused attention has no second derivative; backend 'reference' has all of them")


_attention_backward.register_autograd(_refuse)


@register_flop_formula(torch.ops.paradigms.attention)
def _flops(
    operands: Sequence[Sequence[int]],
    names: str,
    seed: object,  # noqa: ARG001
    dropout_p: float,  # noqa: ARG001
    scale: float | None,
    kind: str,  # noqa: ARG001
    kernel_size: Sequence[int],
    *_: object,
    **__: object,
) -> int:
    return 2 * _count(operands, names, scale, kernel_size)


@register_flop_formula(torch.ops.paradigms.attention_backward)
def _flops_of_backward(
    grad: object,  # noqa: ARG001
    lse: object,  # noqa: ARG001
    operands: Sequence[Sequence[int]],
    names: str,
    seed: object,  # noqa: ARG001
    dropout_p: float,  # noqa: ARG001
    scale: float | None,
    kind: str,  # noqa: ARG001
    kernel_size: Sequence[int],
    *_: object,
    **__: object,
) -> int:
    """As autograd's: two products for each of the forward pass; what is computed again is not counted."""
    return 2 * 2 * _count(operands, names, scale, kernel_size)


def _count(operands: Sequence[Sequence[int]], names: str, scale: float | None, kernel_size: Sequence[int]) -> int:
    products = 1 + (scale is not None) + sum(name in names.split() for name in ("rk", "rq"))
    shape = operands[names.split().index("v")]
    return products * torch.Size(shape).numel() * kernel_size[0] * kernel_size[1]


def attend(case: Case, *, dropout_p: float, backend: str) -> Map:
    """Eq. 4 of arXiv:2112.12786 under softmax; draws dropout's seed from torch's generator where it is needed."""
    terms, v, geometry, _, _ = case
    assert all(x is None or x.shape == v.shape for x in (terms.q, terms.k))  # kernels read memory by the shape of v
    operands = to_operands(case)._asdict()
    present = {name: tensor for name, tensor in operands.items() if tensor is not None}
    seed = torch.randint(2**62, (), device="cpu") if dropout_p else None
    out, _lse = torch.ops.paradigms.attention(
        list(present.values()),
        " ".join(present),
        seed,
        dropout_p,
        terms.scale,
        geometry.kind,
        geometry.kernel_size,
        geometry.dilation,
        geometry.border,
        geometry.shift,
        backend,
    )
    return out  # type: ignore[no-any-return]
