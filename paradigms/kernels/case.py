"""What fused attention is computed from and what its backends answer."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from paradigms.functional import Geometry, Outside, Terms

Map = Float[Tensor, "batch height width heads head_dim"]
Regrouped = Float[Tensor, "batch height width ghosts channels"]
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


def to_operands(case: Case) -> Operands:
    """The tensors of a case."""
    terms, v, _, outside, _ = case
    return Operands(terms.q, terms.k, v, terms.rk, terms.rq, terms.rb, outside.k, outside.v)


def regroup(v: Map, outside: Outside, heads: int) -> tuple[Regrouped, Outside]:
    """The same channels as so many heads."""
    carried = None if outside.v is None else outside.v.reshape(heads, -1)
    return v.flatten(-2).unflatten(-1, (heads, -1)), Outside(outside.k, carried)


@runtime_checkable
class FusedBackend(Protocol):
    """What a module must offer."""

    def attention(self, case: Case) -> tuple[Map, PerQuery]:
        """The output, contiguous and of the values' dtype, and the log-sum-exp of the counted logits."""
        ...

    def attention_backward(self, grad: Map, lse: PerQuery, case: Case) -> Operands:
        """The gradients of the sum of `grad` times the output; None where the operand is."""
        ...


def lse_dtype(v: Tensor) -> torch.dtype:
    """Of the log-sum-exp: 16-bit values are computed with in float32."""
    return torch.float64 if v.dtype == torch.float64 else torch.float32
