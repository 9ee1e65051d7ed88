"""A pixel that is NaN or infinite reaches no further than the neighborhood, by any backend."""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from jaxtyping import Bool
from torch import Tensor

from paradigms import AttentionConfig, build_attention
from paradigms.config import BACKENDS

SIZE, DIM, HEADS = (12, 21), 8, 2
PIXEL = 6, 9
NEIGHBORHOODS: dict[str, dict[str, Any]] = {
    **{
        f"window-{border}": {"neighborhood": "local_window", "border": border, "window_size": 4, "shift_size": 2}
        for border in ("project", "mask", "zero")
    },
    **{
        f"sliding-{border}": {"neighborhood": "sliding_window", "border": border, "kernel_size": 5}
        for border in ("zero", "mask", "project", "shift")
    },
    "dilated": {"neighborhood": "sliding_window", "border": "shift", "kernel_size": 3, "dilation": 2},
    **{
        f"chunk-{border}": {"neighborhood": "sliding_chunk", "border": border, "chunk_size": 2}
        for border in ("zero", "mask", "project")
    },
}
LEVELS: dict[str, dict[str, Any]] = {
    "softmax": {"parameterization": ("query_key", "query_position", "position_key", "position_bias")},
    "positions": {"parameterization": ("query_position", "position_bias")},
    "identity": {"normalization": "identity"},
    "ghost_head": {"aggregation": "ghost_head", "ghost_lambda": 1.0},
}


def _find_spread(config: AttentionConfig, value: float, place: str) -> list[Bool[Tensor, "height width"]]:
    """Where the output is not finite, and where the gradient of the input is."""
    torch.manual_seed(0)
    operator = build_attention(config, dim=DIM, num_heads=HEADS)
    x, grad = torch.randn(2, 1, *SIZE, DIM).unbind()
    {"input": x, "gradient": grad}[place][0, *PIXEL] = value
    x.requires_grad_()
    out = operator(x)
    (of_x,) = torch.autograd.grad(out, x, grad)
    return [(~found.isfinite()).any(dim=-1)[0] for found in (out, of_x)]


def _list_backends(levels: dict[str, Any]) -> Iterator[AttentionConfig]:
    """A config for each backend that supports the levels here."""
    for backend in BACKENDS:
        if backend in ("reference", "triton"):
            continue
        try:
            config = AttentionConfig(**levels, backend=backend)
            build_attention(config, dim=DIM, num_heads=HEADS)(torch.zeros(1, *SIZE, DIM))
        except ValueError:
            continue
        yield config


@pytest.mark.parametrize(
    "levels",
    [
        pytest.param(levels, marks=pytest.mark.slow if number > 1 else (), id=name)
        for number, (name, levels) in enumerate(LEVELS.items())
    ],
)
@pytest.mark.parametrize("neighborhood", NEIGHBORHOODS.values(), ids=NEIGHBORHOODS.keys())
def test_a_pixel_that_is_not_finite_reaches_no_further_than_by_the_reference(
    neighborhood: dict[str, Any], levels: dict[str, Any]
) -> None:
    case = {**neighborhood, **levels}
    configs = list(_list_backends(case))
    assert configs[0].backend == "auto"
    for value, place in product((math.nan, math.inf), ("input", "gradient")):
        allowed = _find_spread(AttentionConfig(**case, backend="reference"), value, place)
        assert not allowed[1].all()
        for config in configs:
            found = _find_spread(config, value, place)
            assert found[1][PIXEL], config
            assert not any((spread & ~limit).any() for spread, limit in zip(found, allowed, strict=True)), config


def test_a_pixel_that_is_not_finite_reaches_every_query_that_counts_it() -> None:
    for backend in ("torch", "dense", "reference"):
        config = AttentionConfig(neighborhood="sliding_window", kernel_size=5, border="zero", backend=backend)
        for value in (math.nan, math.inf):
            output, _ = _find_spread(config, value, "input")
            assert output.sum() == 25
            assert output[4:9, 7:12].all()
