"""The one seam between the operator and speed: `attend` picks a kernel that supports the case.

A kernel is a fast path of the same function as `reference.attend`, equal to it in output and in every gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from paradigms.functional import Aggregation, Geometry, Normalization, Outside, Terms, count_multiply_adds
from paradigms.kernels import cpu, dense, fused, local_window, reference, sliding_chunk, sliding_window
from paradigms.kernels.case import Case

Attend = Callable[[Terms, Tensor, Geometry, Normalization, Aggregation, Outside, float], Tensor]


def _runs_everywhere(device: torch.device) -> bool:  # noqa: ARG001 - what every kernel is asked
    return True


def _has_library(device: torch.device) -> bool:
    return device.type == "cpu" and cpu.is_available()


def _has_triton(device: torch.device) -> bool:
    from paradigms.kernels import triton_kernels

    return triton_kernels.is_available(device)


@dataclass(frozen=True)
class Kernel:
    """One way to compute `attend` and the cases that it supports; None means every one."""

    backend: str
    attend: Attend
    kinds: frozenset[str] | None = None
    borders: frozenset[str] | None = None
    normalizations: frozenset[str] | None = None
    aggregations: frozenset[str] | None = frozenset({"weighted_sum"})
    runs_on: Callable[[torch.device], bool] = _runs_everywhere

    def supports(self, geometry: Geometry, normalization: Normalization, aggregation: Aggregation) -> bool:
        """Whether this kernel computes this case."""
        asked = (
            (self.kinds, geometry.kind),
            (self.borders, geometry.border),
            (self.normalizations, normalization.kind),
            (self.aggregations, aggregation.kind),
        )
        return all(known is None or name in known for known, name in asked)


_WINDOW, _SLIDING = frozenset({"window"}), frozenset({"sliding"})
_SOFTMAX = frozenset({"softmax"})
_CENTRED = frozenset({"zero", "mask", "project"})
_FUSED = frozenset({"zero", "mask", "shift"})


def _attend_fused(backend: str) -> Attend:
    def attend(
        terms: Terms,
        v: Tensor,
        geometry: Geometry,
        normalization: Normalization,  # noqa: ARG001 - the support mapping admits softmax alone
        aggregation: Aggregation,  # noqa: ARG001 - and the weighted sum
        outside: Outside,
        dropout_p: float,
    ) -> Tensor:
        return fused.attend(Case(terms, v, geometry, outside, None), dropout_p=dropout_p, backend=backend)

    return attend


def _attend_composed(backend: str) -> Attend:
    return partial(sliding_window.attend, backend=backend)


KERNELS = (
    Kernel("cpu", _attend_fused("cpu"), _WINDOW, _CENTRED, _SOFTMAX, runs_on=_has_library),
    Kernel("cpu", _attend_fused("cpu"), _SLIDING, _FUSED, _SOFTMAX, runs_on=_has_library),
    Kernel("cpu", _attend_composed("cpu"), _SLIDING, _CENTRED, runs_on=_has_library),
    Kernel("torch", local_window.attend, _WINDOW),
    Kernel("torch", sliding_chunk.attend, frozenset({"chunk"})),
    Kernel("torch", _attend_fused("torch"), _SLIDING, _FUSED, _SOFTMAX),
    Kernel("torch", _attend_composed("torch"), _SLIDING, _CENTRED),
    Kernel("triton", _attend_fused("triton"), _SLIDING, _FUSED, _SOFTMAX, runs_on=_has_triton),
    Kernel("triton", _attend_composed("triton"), _SLIDING, _CENTRED, runs_on=_has_triton),
    Kernel("dense", dense.attend, _SLIDING, frozenset({"zero", "mask"})),
    Kernel("reference", reference.attend, aggregations=None),
)
"""In the order in which `auto` prefers them: what has not been measured comes after what has."""


def choose_kernel(
    geometry: Geometry,
    normalization: Normalization,
    aggregation: Aggregation,
    *,
    backend: str = "auto",
    device: torch.device | None = None,
) -> Kernel:
    """The first kernel of this backend that supports the case and runs on the device (None: never mind).

    Raises:
        ValueError: the backend does not support it, or does not run here; `auto` always does.
    """
    case = f"{geometry} with {normalization.kind} and {aggregation.kind}"
    supporting = [
        kernel
        for kernel in KERNELS
        if backend in ("auto", kernel.backend) and kernel.supports(geometry, normalization, aggregation)
    ]
    if not supporting:
        raise ValueError(f"backend {backend!r} does not support {case}; use 'auto'")
    for kernel in supporting:
        if device is None or kernel.runs_on(device):
            return kernel
    raise ValueError(f"backend {backend!r} does not run on {device} here; use 'auto'")


def describe_preferred(device: torch.device) -> str:
    """The backend that `auto` prefers on a device, with its instruction set where it is compiled."""
    kernel = next(kernel for kernel in KERNELS if kernel.runs_on(device))
    return f"{kernel.backend} ({cpu.get_instruction_set()})" if kernel.backend == "cpu" else kernel.backend


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
    device = None if v.is_meta else v.device
    kernel = choose_kernel(geometry, normalization, aggregation, backend=backend, device=device)
    if v.is_meta:
        cost = count_multiply_adds(terms, v, geometry, aggregation.products)
        return torch.ops.paradigms.counted(v, cost)  # type: ignore[no-any-return]
    return kernel.attend(terms, v, geometry, normalization, aggregation, outside, dropout_p)
