"""Fast paths of the operator: `attend` chooses a backend that supports the combination.

A kernel is a fast path of the same function as `reference.attend`, equal to it in output and in every gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from paradigms.constants import load_constants
from paradigms.functional import (
    CPU,
    Aggregation,
    Geometry,
    Normalization,
    Outside,
    Scores,
    Terms,
    count_multiply_adds,
    declare_cost,
    list_taps,
)
from paradigms.kernels import added, cpu, dense, fused, local_window, moving, reference, sliding_chunk, sliding_window
from paradigms.kernels.added import Attend, Convolve
from paradigms.kernels.problem import Problem


def _runs_everywhere(device: torch.device) -> bool:  # noqa: ARG001 - what every kernel is asked
    return True


def _has_library(device: torch.device) -> bool:
    return device.type == "cpu" and cpu.is_available()


def _has_triton(device: torch.device) -> bool:
    from paradigms.kernels import triton_kernels

    return triton_kernels.is_available(device)


@dataclass(frozen=True)
class Kernel:
    """One way to compute `attend` and the combinations that it supports; None means every one.

    Attributes:
        exports_to_onnx: whether it consists of operations that ONNX has; our own operators have no translation.
    """

    backend: str
    attend: Attend
    kinds: frozenset[str] | None = None
    borders: frozenset[str] | None = None
    normalizations: frozenset[str] | None = None
    aggregations: frozenset[str] | None = frozenset({"weighted_sum"})
    scores: frozenset[str] | None = frozenset({"terms"})
    exports_to_onnx: bool = False
    runs_on: Callable[[torch.device], bool] = _runs_everywhere

    def supports(self, geometry: Geometry, normalization: Normalization, aggregation: str, scores: str) -> bool:
        """Whether this kernel computes this combination."""
        return (
            (self.kinds is None or geometry.kind in self.kinds)
            and (self.borders is None or geometry.border in self.borders)
            and (self.normalizations is None or normalization.kind in self.normalizations)
            and (self.aggregations is None or aggregation in self.aggregations)
            and (self.scores is None or scores in self.scores)
        )


_WINDOW, _SLIDING, _CHUNK = frozenset({"window"}), frozenset({"sliding"}), frozenset({"chunk"})
_SOFTMAX = frozenset({"softmax"})
_CENTRED = frozenset({"zero", "mask", "project"})
_FUSED = frozenset({"zero", "mask", "shift"})
_SHIFT, _NO_BIAS = frozenset({"shift"}), frozenset({"zero", "mask"})
_TERMS = frozenset({"terms", "shared_terms"})


_SUM, _FILTER = frozenset({"weighted_sum"}), frozenset({"filtered"})
_FILTERED = frozenset({"weighted_sum", "filtered"})
"""Aggregations without an added filter; `_add_filters` makes the kernels for that."""


def _attend_fused(backend: str) -> Attend:
    def attend(
        scores: Scores,
        v: Tensor,
        geometry: Geometry,
        normalization: Normalization,  # noqa: ARG001 - the support mapping admits softmax alone
        aggregation: Aggregation,  # noqa: ARG001 - and the weighted sum
        outside: Outside,
        dropout_p: float,
    ) -> Tensor:
        assert isinstance(scores, Terms)
        return fused.attend(Problem(scores, v, geometry, outside, None), dropout_p=dropout_p, backend=backend)

    return attend


def _attend_composed(backend: str) -> Attend:
    return partial(sliding_window.attend, backend=backend)


_WEIGHTED = (
    Kernel("cpu", _attend_fused("cpu"), _WINDOW, _CENTRED, _SOFTMAX, runs_on=_has_library),
    Kernel("cpu", _attend_fused("cpu"), _SLIDING, _FUSED, _SOFTMAX, runs_on=_has_library),
    Kernel("cpu", _attend_fused("cpu"), _CHUNK, _NO_BIAS, _SOFTMAX, runs_on=_has_library),
    Kernel("cpu", _attend_composed("cpu"), _SLIDING, _CENTRED, None, _FILTERED, None, runs_on=_has_library),
    Kernel("cpu", moving.attend, _SLIDING, _SHIFT, None, _FILTERED, _TERMS, runs_on=_has_library),
    Kernel("cpu", moving.attend, _CHUNK, _NO_BIAS, None, _FILTERED, _TERMS, runs_on=_has_library),
    Kernel("cpu", local_window.attend_filtered, _WINDOW, _CENTRED, None, _FILTER, _TERMS, runs_on=_has_library),
    Kernel("torch", local_window.attend, _WINDOW, _CENTRED, aggregations=_FILTERED, exports_to_onnx=True),
    Kernel("torch", sliding_chunk.attend, _CHUNK, _CENTRED, aggregations=_FILTERED, exports_to_onnx=True),
    Kernel("torch", _attend_fused("torch"), _SLIDING, _FUSED, _SOFTMAX),
    Kernel("torch", _attend_composed("torch"), _SLIDING, _CENTRED, None, _FILTERED, None),
    Kernel("triton", _attend_fused("triton"), _SLIDING, _FUSED, _SOFTMAX, runs_on=_has_triton),
    Kernel("triton", _attend_composed("triton"), _SLIDING, _CENTRED, None, _FILTERED, None, runs_on=_has_triton),
    Kernel("dense", dense.attend, _SLIDING, frozenset({"zero", "mask"}), exports_to_onnx=True),
)
"""In the order in which `auto` prefers them; kernels whose speed was never measured come last."""

_CONVOLUTIONS: tuple[tuple[frozenset[str], frozenset[str], Convolve, frozenset[str] | None], ...] = (
    (_CHUNK, _NO_BIAS, moving.convolve, frozenset({"cpu"})),
    (_SLIDING, _SHIFT, moving.convolve, frozenset({"cpu"})),
    (_WINDOW, _CENTRED, local_window.convolve, None),
    (_CHUNK, _CENTRED, sliding_chunk.convolve, None),
    (_SLIDING, _CENTRED, sliding_window.convolve, None),
    (_SLIDING, _SHIFT, reference.convolve, None),
)
"""Functions that apply a static filter: kinds and borders of the neighborhood, function, backends (None: all).

`KERNELS` has them in this order."""


def _add_filters(kernel: Kernel) -> list[Kernel]:
    """Kernels for the same weights plus a static filter: one for each entry of `_CONVOLUTIONS` that fits."""
    if kernel.kinds is None or kernel.borders is None or kernel.aggregations is None:
        return []
    weighs = {"added"} if "weighted_sum" in kernel.aggregations else set()
    return [
        replace(
            kernel,
            attend=partial(added.attend, weigh=kernel.attend, convolve=convolve),
            borders=kernel.borders & borders,
            aggregations=kernel.aggregations - {"weighted_sum"} | weighs,
        )
        for kinds, borders, convolve, backends in _CONVOLUTIONS
        if kernel.kinds <= kinds and kernel.borders & borders and (backends is None or kernel.backend in backends)
    ]


KERNELS = (
    *(replace(kernel, aggregations=(kernel.aggregations or _SUM) & _SUM) for kernel in _WEIGHTED),
    *(found for kernel in _WEIGHTED for found in _add_filters(kernel)),
    Kernel("reference", reference.attend, aggregations=None, scores=None, exports_to_onnx=True),
)
"""In the order in which `auto` prefers them."""


def choose_kernel(
    geometry: Geometry,
    normalization: Normalization,
    aggregation: str = "weighted_sum",
    scores: str = "terms",
    *,
    backend: str = "auto",
    device: torch.device | None = None,
) -> Kernel:
    """The first kernel of this backend that supports the combination and runs on the device (None: any device).

    Within `torch.onnx.export`, `auto` chooses among the kernels that can be exported to ONNX.

    `aggregation` is the kind of an `Aggregation`; `scores` is the kind of `functional.Scores`.

    Raises:
        ValueError: the backend does not support the combination or does not run on the device. `auto` never raises.
    """
    is_supported = False
    for kernel in KERNELS:
        if backend in ("auto", kernel.backend) and kernel.supports(geometry, normalization, aggregation, scores):
            if backend == "auto" and not kernel.exports_to_onnx and torch.onnx.is_in_onnx_export():
                continue
            if device is None or kernel.runs_on(device):
                return kernel
            is_supported = True
    if is_supported:
        raise ValueError(f"backend {backend!r} does not run on {device} here; use 'auto'")
    combination = f"{geometry} with {scores}, {normalization.kind} and {aggregation}"
    raise ValueError(f"backend {backend!r} does not support {combination}; use 'auto'")


def require_taps(normalization: Normalization, geometry: Geometry, height: int, width: int) -> None:
    """Raise a ValueError if a query of the map counts fewer taps than the normalization's `minimum_taps`."""
    least = getattr(normalization, "minimum_taps", 1)
    if least > 1:
        (fewest,) = load_constants(_count_fewest, geometry, height, width, device=CPU)
        if fewest < least:
            raise ValueError(
                f"{normalization.kind} needs at least {least} counted taps, "
                f"got {fewest} of {geometry.num_taps} on a map of {height}x{width}"
            )


def _count_fewest(geometry: Geometry, height: int, width: int) -> tuple[int]:
    return (int(list_taps(geometry, height, width).valid.sum(axis=-1).min(initial=geometry.num_taps)),)


def _name_scores(scores: Scores, v: Tensor) -> str:
    if not isinstance(scores, Terms):
        return "logits"
    shared = any(x is not None and x.shape != v.shape for x in (scores.q, scores.k))
    return "shared_terms" if shared else "terms"


def describe_preferred(device: torch.device) -> str:
    """The backend that `auto` prefers on a device; for compiled kernels with their instruction set."""
    kernel = next(kernel for kernel in KERNELS if kernel.runs_on(device))
    return f"{kernel.backend} ({cpu.get_instruction_set()})" if kernel.backend == "cpu" else kernel.backend


def attend(
    scores: Scores,
    v: Float[Tensor, "batch height width heads head_dim"],
    geometry: Geometry,
    normalization: Normalization,
    aggregation: Aggregation = Aggregation(),  # noqa: B008 - immutable
    *,
    outside: Outside = Outside(None, None),  # noqa: B008 - immutable
    dropout_p: float = 0.0,
    backend: str = "auto",
) -> Float[Tensor, "batch height width heads head_dim"]:
    """Eq. 4 of arXiv:2112.12786, from projected queries, keys and values to the output before its projection.

    On the meta device it computes nothing. It reports its multiply-adds to `torch.utils.flop_counter`, by the same
    formula for every kernel.

    Args:
        scores: the operands of the logits, or the logits.
        v: the values.
        geometry: which keys a query sees.
        normalization: logits to weights.
        aggregation: how weights and values are combined.
        outside: keys and values outside the map under the border `project`.
        dropout_p: probability of dropping a weight.
        backend: `auto` or the name of a backend.

    Raises:
        ValueError: the backend does not support this combination, or a query counts fewer taps than the normalization
            needs.
    """
    require_taps(normalization, geometry, v.shape[1], v.shape[2])
    device = None if v.is_meta else v.device
    made = _name_scores(scores, v)
    kernel = choose_kernel(geometry, normalization, aggregation.kind, made, backend=backend, device=device)
    if v.is_meta:
        return declare_cost(v, count_multiply_adds(scores, v, geometry, aggregation))
    return kernel.attend(scores, v, geometry, normalization, aggregation, outside, dropout_p)
