"""Every kernel equals the reference: output and every gradient, two-sided, odd shapes."""

from dataclasses import astuple, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from paradigms.attention import LocalAttention, build_attention
from paradigms.config import TERMS, AttentionConfig
from paradigms.functional import Geometry
from paradigms.kernels import choose_kernel
from paradigms.laws.operator import differentiate, equals_the_reference
from paradigms.normalization import FilterNorm, Softmax

from ..conftest import OF_LEVELS, OF_PRESETS, make_input, make_operator
from ..covering import choose_pairwise

SIZES = {"one-pixel": (1, 1), "line": (1, 9), "low": (3, 12), "odd": (9, 5), "fits": (8, 8)}


def _assert_equal(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    scale = max(float(tensor.detach().abs().max()) for tensor in expected)
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        assert float((a - e).detach().abs().max()) <= tolerance * scale


def _make_parameters() -> list[Any]:
    """Every level on every map, slow but for those in which every pair meets; and every preset."""
    cases = {f"{name}-{label}": (config, size) for name, config in OF_LEVELS.items() for label, size in SIZES.items()}
    fast = set(choose_pairwise([(*astuple(config), size) for config, size in cases.values()]))
    return [
        *(
            pytest.param(*case, id=name, marks=() if at in fast else pytest.mark.slow)
            for at, (name, case) in enumerate(cases.items())
        ),
        *(pytest.param(config, SIZES["odd"], id=f"{name}-odd") for name, config in OF_PRESETS.items()),
    ]


@pytest.mark.parametrize(("config", "size"), _make_parameters())
def test_the_fast_path_equals_the_reference(config: AttentionConfig, size: tuple[int, int]) -> None:
    equals_the_reference(config, size)


@pytest.mark.parametrize("num_heads", [1, 3, 6], ids=["one-head", "heads", "heads-as-channels"])
@pytest.mark.parametrize("neighborhood", ["local_window", "sliding_window"])
def test_the_fast_path_equals_the_reference_for_any_number_of_heads(neighborhood: str, num_heads: int) -> None:
    config = AttentionConfig(parameterization=TERMS, neighborhood=neighborhood, window_size=(2, 3), kernel_size=(5, 3))
    operator, x = make_operator(config, num_heads=num_heads), make_input()
    _assert_equal(differentiate(operator, x, "torch"), differentiate(operator, x, "reference"), 1e-12)


@pytest.mark.parametrize("neighborhood", ["local_window", "sliding_window"])
def test_the_fast_path_equals_the_reference_in_float32(neighborhood: str) -> None:
    config = AttentionConfig(parameterization=TERMS, neighborhood=neighborhood, shift_size=3)
    operator, x = make_operator(config).float(), make_input(14, 9).float()
    _assert_equal(differentiate(operator, x, "torch"), differentiate(operator, x, "reference"), 1e-5)


@pytest.mark.parametrize("neighborhood", ["local_window", "sliding_window"])
def test_an_input_in_any_layout_gives_the_same_output(neighborhood: str) -> None:
    operator = make_operator(AttentionConfig(neighborhood=neighborhood, kernel_size=3, window_size=3))
    x = make_input()
    channels_first = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert torch.equal(operator(channels_first), operator(x))


def test_an_empty_batch_gives_an_empty_output(operator: LocalAttention) -> None:
    assert operator(make_input()[:0]).shape == (0, *make_input().shape[1:])


@pytest.mark.parametrize("neighborhood", ["local_window", "sliding_window"])
def test_dropped_weights_are_drawn_in_training_only(neighborhood: str) -> None:
    config = AttentionConfig(neighborhood=neighborhood, window_size=3, kernel_size=3)
    operator = build_attention(config, dim=6, num_heads=2, attn_drop=0.5).double()
    x = make_input()
    assert torch.equal(operator.eval()(x), operator(x))
    assert not torch.equal(operator.train()(x), operator(x))


def test_a_backend_that_cannot_compute_a_case_says_so() -> None:
    geometry = Geometry("window", (3, 3), border="zero")
    with pytest.raises(ValueError, match="does not support"):
        choose_kernel(geometry, FilterNorm(), backend="cpu")
    with pytest.raises(ValueError, match="does not run on meta"):
        choose_kernel(geometry, Softmax(), backend="cpu", device=torch.device("meta"))


@pytest.mark.parametrize("kind", ["window", "sliding"])
def test_training_on_a_cpu_uses_the_compiled_kernels(kind: str) -> None:
    geometry = Geometry(kind, (7, 7), border="zero")
    kernel = choose_kernel(geometry, Softmax(), device=torch.device("cpu"))
    assert kernel.backend == "cpu"


def _count(operator: LocalAttention, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        operator(x)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("terms", [TERMS[:1], TERMS[1:3], TERMS[3:], TERMS], ids="+".join)
def test_the_formula_for_multiply_adds_counts_what_matrix_products_do(terms: tuple[str, ...], backend: str) -> None:
    """In windows that fit, both kernels are matrix products, which torch counts by itself."""
    operator = make_operator(AttentionConfig(parameterization=terms, window_size=4))
    operator.backend = backend
    formula = _count(operator.to("meta"), torch.empty(2, 8, 8, 6, dtype=torch.float64, device="meta"))
    real = make_operator(AttentionConfig(parameterization=terms, window_size=4))
    real.backend = backend
    assert _count(real, make_input(8, 8)) == formula


def test_the_multiply_adds_of_a_sliding_window_are_those_of_gathered_matrix_products() -> None:
    config = AttentionConfig(parameterization=TERMS, neighborhood="sliding_window", kernel_size=(3, 5))
    real = make_operator(config)
    real.backend = "reference"
    meta = make_operator(config).to("meta")
    assert _count(meta, make_input().to("meta")) == _count(real, make_input())


def test_the_shift_border_is_the_same_as_masking_where_nothing_is_outside() -> None:
    """In the middle of the map a clamped window is a centred one; its tables have 2k - 1 offsets an axis."""
    config = AttentionConfig(parameterization=("query_key",), neighborhood="sliding_window", kernel_size=3)
    clamped = make_operator(replace(config, border="shift"))
    masked = make_operator(replace(config, border="mask"))
    masked.load_state_dict(clamped.state_dict())
    x = make_input()
    inner = (slice(None), slice(1, -1), slice(1, -1))
    assert torch.allclose(clamped(x)[inner], masked(x)[inner])
    assert not torch.allclose(clamped(x)[:, 0], masked(x)[:, 0])
