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
"""The normalizer of the softmax as two numbers: the largest counted logit m and Σ e^(logit - m).

One number, m + log Σ, would be rounded like m. With large logits, weights recomputed from it would not sum to one, and
the gradients of the logits, which are differences, would lose far more precision.
"""


class Dropout(NamedTuple):
    """Dropout of weights with probability `p`, drawn by a generator with this seed."""

    p: float
    seed: int


class Problem(NamedTuple):
    """The inputs of fused attention; absent tensors are None, as in `Terms` and `Outside`."""

    terms: Terms
    v: Map
    geometry: Geometry
    outside: Outside
    dropout: Dropout | None


class Operands(NamedTuple):
    """The tensors of a `Problem` or their gradients, in a fixed order."""

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
    """Split the channels into this number of heads."""
    carried = None if outside.v is None else outside.v.reshape(heads, -1)
    return v.flatten(-2).unflatten(-1, (heads, -1)), Outside(outside.k, carried)


@runtime_checkable
class FusedBackend(Protocol):
    """The functions of a backend."""

    def attention(self, problem: Problem) -> tuple[Map, Normalizer]:
        """The output, contiguous and in the dtype of the values, and the normalizer of the softmax."""
        ...

    def attention_backward(self, grad: Map, normalizer: Normalizer, problem: Problem) -> Operands:
        """The gradients of the operands, given the gradient of the output; None for absent operands."""
        ...


def lse_dtype(v: Tensor) -> torch.dtype:
    """The dtype of sums: float32 for 16-bit values, else the dtype of the values."""
    return torch.float64 if v.dtype == torch.float64 else torch.float32
