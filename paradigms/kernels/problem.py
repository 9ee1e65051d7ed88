"""The operands of fused attention, and the protocol of its backends."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from paradigms.functional import Geometry, Outside, Terms

Map = Float[Tensor, "batch height width heads head_dim"]
Regrouped = Float[Tensor, "batch height width ghosts channels"]
PerQuery = Float[Tensor, "batch height width heads"]
Normalizer = Float[Tensor, "batch height width heads 2"]
"""What the softmax divides by, in two numbers: the largest counted logit m and Σ e^(logit - m).

Their logarithm in one number, m + log Σ, would round like m: weights that are recomputed from it do not sum to one when
logits are large, and the gradients of the logits, which are differences, lose far more than that.
"""


class Dropout(NamedTuple):
    """Which weights are dropped: each with probability `p`, by a generator that starts from `seed`."""

    p: float
    seed: int


class Problem(NamedTuple):
    """Everything that fused attention is computed from; absent tensors are None, as in `Terms` and `Outside`."""

    terms: Terms
    v: Map
    geometry: Geometry
    outside: Outside
    dropout: Dropout | None


class Operands(NamedTuple):
    """The tensors of a `Problem`, or their gradients, in one order."""

    q: Tensor | None
    k: Tensor | None
    v: Tensor | None
    rk: Tensor | None
    rq: Tensor | None
    rb: Tensor | None
    outside_k: Tensor | None = None
    outside_v: Tensor | None = None


def to_operands(problem: Problem) -> Operands:
    """The tensors of a problem, in the order of `Operands`."""
    terms, v, _, outside, _ = problem
    return Operands(terms.q, terms.k, v, terms.rk, terms.rq, terms.rb, outside.k, outside.v)


def regroup(v: Map, outside: Outside, heads: int) -> tuple[Regrouped, Outside]:
    """The same channels as so many heads."""
    carried = None if outside.v is None else outside.v.reshape(heads, -1)
    return v.flatten(-2).unflatten(-1, (heads, -1)), Outside(outside.k, carried)


@runtime_checkable
class FusedBackend(Protocol):
    """What a module must offer."""

    def attention(self, problem: Problem) -> tuple[Map, Normalizer]:
        """The output, contiguous and of the values' dtype, and the softmax's denominator."""
        ...

    def attention_backward(self, grad: Map, normalizer: Normalizer, problem: Problem) -> Operands:
        """The gradients of the sum of `grad` times the output; None where the operand is."""
        ...


def lse_dtype(v: Tensor) -> torch.dtype:
    """Of the sums: 16-bit values are computed with in float32."""
    return torch.float64 if v.dtype == torch.float64 else torch.float32
