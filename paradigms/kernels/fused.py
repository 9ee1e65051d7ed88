"""Softmax attention with every term of Eq. 4 (arXiv:2112.12786) as one operator of torch.

It keeps its inputs and one number a query, the logarithm of the softmax's denominator, and makes the weights again in
the backward pass. A backend is a module with two functions, `attention` and `attention_backward`.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from paradigms.functional import Geometry, Outside, Terms, count_multiply_adds

Map = Float[Tensor, "batch height width heads head_dim"]
PerQuery = Float[Tensor, "batch height width heads"]


class Dropout(NamedTuple):
    """Which weights are dropped: each with probability `p`, by a generator that starts from `seed`."""

    p: float
    seed: int


class Case(NamedTuple):
    """Everything that fused attention is computed from; absent tensors are None, as in `Terms` and `Outside`."""

    terms: Terms
    v: Map
    geometry: Geometry
    outside: Outside
    dropout: Dropout | None


class Operands(NamedTuple):
    """The tensors of a `Case`, or their gradients, in one order."""

    q: Tensor | None
    k: Tensor | None
    v: Tensor | None
    rk: Tensor | None
    rq: Tensor | None
    rb: Tensor | None
    outside_k: Tensor | None = None
    outside_v: Tensor | None = None


@runtime_checkable
class FusedBackend(Protocol):
    """What a module must offer."""

    def attention(self, case: Case) -> tuple[Map, PerQuery]:
        """The output, contiguous and of the values' dtype, and the log-sum-exp of the counted logits."""
        ...

    def attention_backward(self, grad: Map, lse: PerQuery, case: Case) -> Operands:
        """The gradients of the sum of `grad` times the output; None where the operand is."""
        ...


BACKENDS = {"triton": "paradigms.kernels.triton_kernels.attention"}
"""The modules that compute `attention` and `attention_backward`, by backend; imported when they are first used."""


def _load(backend: str) -> FusedBackend:
    return cast("FusedBackend", import_module(BACKENDS[backend]))


def _to_case(  # noqa: PLR0913 - operators of torch take plain values
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
    terms = Terms(*(given.get(name) for name in ("q", "k", "rk", "rq", "rb")), scale)
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
    return _load(backend).attention(case)


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
    gradients = _load(backend).attention_backward(grad, lse, case)._asdict()
    return [gradients[name] for name in names.split()]


@_attention.register_fake
def _(operands: Sequence[Tensor], names: str, *_: object) -> tuple[Tensor, Tensor]:
    v = operands[names.split().index("v")]
    return v.new_empty(v.shape), v.new_empty(v.shape[:-1], dtype=lse_dtype(v))


@_attention_backward.register_fake
def _(grad: Tensor, lse: Tensor, operands: Sequence[Tensor], *_: object) -> list[Tensor]:  # noqa: ARG001
    return [operand.new_empty(operand.shape) for operand in operands]


def lse_dtype(v: Tensor) -> torch.dtype:
    """Of the log-sum-exp: 16-bit values are computed with in float32."""
    return torch.float64 if v.dtype == torch.float64 else torch.float32


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


def attend(case: Case, *, dropout_p: float, backend: str) -> Map:
    """Softmax attention; draws the dropout's seed from torch's generator where `dropout_p` is not zero."""
    terms, v, geometry, outside, _ = case
    operands = Operands(terms.q, terms.k, v, terms.rk, terms.rq, terms.rb, outside.k, outside.v)._asdict()
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
