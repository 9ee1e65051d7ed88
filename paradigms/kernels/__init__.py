"""The one seam between the operator and speed: `attend` picks a kernel that supports the case.

A kernel is a fast path of the same function as `reference.attend`, equal to it in output and in every gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from paradigms.functional import Aggregation, Geometry, Normalization, Outside, Terms, count_multiply_adds
from paradigms.kernels import local_window, reference, sliding_window

Attend = Callable[[Terms, Tensor, Geometry, Normalization, Aggregation, Outside, float], Tensor]


@dataclass(frozen=True)
class Kernel:
    """One way to compute `attend` and the cases that it supports; None means every one."""

    backend: str
    attend: Attend
    kinds: frozenset[str] | None = None
    borders: frozenset[str] | None = None
    aggregations: frozenset[str] | None = None

    def supports(self, geometry: Geometry, aggregation: Aggregation) -> bool:
        """Whether this kernel computes this case."""
        asked = ((self.kinds, geometry.kind), (self.borders, geometry.border), (self.aggregations, aggregation.kind))
        return all(known is None or name in known for known, name in asked)


KERNELS = (
    Kernel(
        "torch",
        local_window.attend,
        kinds=frozenset({"window"}),
        aggregations=frozenset({"weighted_sum"}),
    ),
    Kernel(
        "torch",
        sliding_window.attend,
        kinds=frozenset({"sliding"}),
        borders=frozenset({"zero", "mask", "project"}),
        aggregations=frozenset({"weighted_sum"}),
    ),
    Kernel("reference", reference.attend),
)
"""In the order in which `auto` prefers them."""


def choose_kernel(geometry: Geometry, aggregation: Aggregation, backend: str = "auto") -> Kernel:
    """The first kernel of this backend that supports the case.

    Raises:
        ValueError: the backend does not support it; `auto` always does.
    """
    for kernel in KERNELS:
        if backend in ("auto", kernel.backend) and kernel.supports(geometry, aggregation):
            return kernel
    raise ValueError(f"backend {backend!r} does not support {geometry} with {aggregation.kind}; use 'auto'")


@torch.library.custom_op("paradigms::counted", mutates_args=())
def _counted(v: Tensor, multiply_adds: int) -> Tensor:  # noqa: ARG001 - read by the flop formula
    """What `attend` is on the meta device: a result without numbers, and its cost."""
    return torch.empty_like(v)


@_counted.register_fake
def _(v: Tensor, multiply_adds: int) -> Tensor:  # noqa: ARG001 - the signature of the operator
    return torch.empty_like(v)


@register_flop_formula(torch.ops.paradigms.counted)
def _counted_flops(_v: object, multiply_adds: int, **_: object) -> int:
    return 2 * multiply_adds


def attend(
    terms: Terms,
    v: Float[Tensor, "batch height width heads head_dim"],
    geometry: Geometry,
    normalization: Normalization,
    aggregation: Aggregation,
    *,
    outside: Outside = Outside(None, None),  # noqa: B008 - immutable
    dropout_p: float = 0.0,
    backend: str = "auto",
) -> Float[Tensor, "batch height width heads head_dim"]:
    """Eq. 4 of arXiv:2112.12786 from projected queries, keys and values to the output before its projection.

    On the meta device it only tells `torch.utils.flop_counter` its multiply-adds, by one formula for every kernel.

    Args:
        terms: what the logits are made of.
        v: the values.
        geometry: which keys a query sees.
        normalization: logits to weights.
        aggregation: weights meet values.
        outside: what taps outside the map carry under the border `project`.
        dropout_p: probability of dropping a weight.
        backend: `auto`, or the name of one.

    Raises:
        ValueError: the backend does not support this case.
    """
    kernel = choose_kernel(geometry, aggregation, backend)
    if v.is_meta:
        cost = count_multiply_adds(terms, v, geometry, aggregation.products)
        return torch.ops.paradigms.counted(v, cost)  # type: ignore[no-any-return]
    return kernel.attend(terms, v, geometry, normalization, aggregation, outside, dropout_p)
