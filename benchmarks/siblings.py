"""Ratios between an operator and its nearest equivalent, such as the same one under the border `zero`.

A level that is slower than its sibling for no reason of its own has no kernel yet; `goals` bounds the ratio.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import WINDOW, Case, Draw, Setting, Workload, build_differentiable
from paradigms import AttentionConfig, build_attention
from paradigms.functional import Aggregation, Terms, count_multiply_adds
from paradigms.kernels import attend

NEAREST = "nearest"
"""The variant of a case that measures the equivalent."""

CHUNK = 3
"""A chunk and the eight around it have 9x9 taps."""


@dataclass(frozen=True)
class Sibling:
    """What is measured, and beside what."""

    config: AttentionConfig
    nearest: AttentionConfig


def _ghost_head(power: float, normalization: str = "softmax") -> dict[str, Any]:
    return {"aggregation": "ghost_head", "ghost_lambda": power, "normalization": normalization}


LEVELS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "identity": {"normalization": "identity"},
    "filter_norm": {"normalization": "filter_norm"},
    "hadamard": {"parameterization": ("hadamard",)},
    "ghost_add": _ghost_head(0.0),
    "ghost_mul": _ghost_head(1.0),
    "ghost_add_identity": _ghost_head(0.0, "identity"),
}

_SLIDING = AttentionConfig(neighborhood="sliding_window", kernel_size=WINDOW, border="zero")
_CHUNKS = AttentionConfig(neighborhood="sliding_chunk", chunk_size=CHUNK, border="mask")
_WINDOWS = AttentionConfig(neighborhood="local_window", window_size=WINDOW)


def _list_siblings() -> dict[str, Sibling]:
    found = {}
    for name, levels in LEVELS.items():
        zero = replace(_SLIDING, **levels)
        found[f"shift_{name}"] = Sibling(replace(zero, border="shift"), zero)
        for border in ("mask", "zero"):
            chunks = replace(_CHUNKS, border=border, **levels)
            found[f"chunk_{border}_{name}"] = Sibling(chunks, replace(zero, kernel_size=3 * CHUNK, border=border))
    filtered = LEVELS["ghost_mul"]
    for name, shift in (("window", 0), ("shifted", WINDOW // 2)):
        windows = replace(_WINDOWS, shift_size=shift, **filtered)
        found[f"{name}_ghost_mul"] = Sibling(windows, replace(_SLIDING, **filtered))
    return found


SIBLINGS = _list_siblings()


def build_sibling(case: Case, setting: Setting) -> Workload:
    """One of `SIBLINGS`, or what is nearest to it, between its projections: from what it projects to the output."""
    sibling, draw = SIBLINGS[case.operator], Draw(case.shape, setting)
    config = sibling.nearest if case.variant == NEAREST else sibling.config
    shape, size = case.shape, case.shape.map_size
    torch.manual_seed(0)
    operator = build_attention(config, dim=shape.channels, num_heads=shape.heads).to(setting.device, setting.dtype)
    x, v, grad = draw(*size).detach().flatten(-2), draw(*size), draw(*size)
    leaves: list[Tensor] = [v]

    def cut(found: Any) -> Any:
        """A tensor as a leaf; what is not a tensor as it is."""
        if not isinstance(found, Tensor):
            return found
        leaves.append(found.detach().requires_grad_())
        return leaves[-1]

    scores, aggregation = (
        Terms(*map(cut, operator.parameterization(x))),
        Aggregation(*map(cut, operator.aggregation(x))),
    )
    geometry = operator.neighborhood.geometry

    def forward() -> Tensor:
        return attend(scores, v, geometry, operator.normalization, aggregation, backend=case.backend)

    cost = count_multiply_adds(scores, v, geometry, aggregation)
    return build_differentiable(forward, leaves, grad, cost)
