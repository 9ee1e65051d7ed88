"""The laws of the operator, over every level and preset; the level's own declarations are the oracle."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from paradigms.attention import LocalAttention
from paradigms.config import BORDERS, NEIGHBORHOODS, AttentionConfig
from paradigms.functional import make_neighbors
from paradigms.normalization import NORMALIZATIONS

from .conftest import DIM, HEIGHT, WIDTH, make_input, make_operator


def test_shape_and_dtype_are_kept(operator: LocalAttention) -> None:
    x = make_input()
    for dtype in (torch.float64, torch.float32):
        y = operator.to(dtype)(x.to(dtype))
        assert y.shape == x.shape
        assert y.dtype == dtype


def test_every_parameter_gets_a_gradient_unless_it_is_declared_invariant(operator: LocalAttention) -> None:
    weight = torch.randn(HEIGHT, WIDTH, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (operator(make_input()) * weight).sum().backward()
    invariant = operator.invariances(HEIGHT, WIDTH)
    for name, parameter in operator.named_parameters():
        gradient = parameter.grad
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        expected_zero = invariant.get(name, torch.tensor(False)).expand_as(gradient)
        scale = max(1.0, float(gradient.abs().max()))
        assert (gradient[expected_zero].abs() < 1e-11 * scale).all(), name
        assert (gradient[~expected_zero].abs() > 1e-11 * scale).all(), name


@pytest.mark.parametrize("border", ["mask", "zero", "project"])
def test_offsets_that_a_small_map_cannot_show_get_no_gradient(border: str) -> None:
    config = AttentionConfig(
        parameterization=("query_position", "position_key", "position_bias"),
        neighborhood="sliding_window",
        aggregation="ghost_head",
        ghost_lambda=1.0,
        kernel_size=7,
        border=border,
    )
    operator = make_operator(config)
    (operator(make_input(2, 3)).square().sum()).backward()
    zero_outside = {"rq.weight", "mul.weight", "add.weight"}
    for name, hidden in operator.invariances(2, 3).items():
        gradient = operator.get_parameter(name).grad
        assert gradient is not None
        assert (gradient[hidden.expand_as(gradient)] == 0).all(), name
        assert (gradient[~hidden.expand_as(gradient)] != 0).all(), name
        table = name.split(".", 1)[1]
        assert hidden.any() == (border == "mask" or (border == "zero" and table in zero_outside)), name


def _queries_reached(operator: LocalAttention, x: Tensor) -> Tensor:
    """[i, j]: whether the output at pixel i depends on the input at pixel j, pixel by pixel of the latter."""
    num_pixels = x.shape[1] * x.shape[2]
    image = x[:1].expand(num_pixels, -1, -1, -1)
    change = torch.eye(num_pixels, dtype=x.dtype).view(num_pixels, *x.shape[1:3], 1)
    difference = operator(image + change) - operator(image)  # entry j: the map changed at pixel j alone
    return difference.reshape(num_pixels, num_pixels, -1).abs().amax(-1).T > 1e-12  # type: ignore[no-any-return]


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (3, 2)], ids=["large", "smaller-than-the-kernel"])
def test_a_query_depends_exactly_on_its_neighborhood(config: AttentionConfig, size: tuple[int, int]) -> None:
    operator = make_operator(config)
    num_pixels = size[0] * size[1]
    index, valid, _ = make_neighbors(operator.neighborhood.geometry, *size)
    declared = torch.zeros(num_pixels, num_pixels + 1, dtype=torch.bool)
    declared.scatter_(1, index.where(valid, torch.tensor(num_pixels)), True)
    declared = declared[:, :num_pixels] | torch.eye(num_pixels, dtype=torch.bool)
    assert torch.equal(_queries_reached(operator, make_input(*size)), declared)


def _corner_output(config: AttentionConfig, border: str) -> float:
    """What a corner gathers under softmax where values are 3 on the map, and 1 where the input is zero."""
    operator = make_operator(replace(config, border=border, parameterization=("position_bias",)))
    with torch.no_grad():
        for linear, scale, bias in ((operator.v, 2.0, 1.0), (operator.proj, 1.0, 0.0)):
            linear.weight.copy_(scale * torch.eye(DIM))
            linear.bias.fill_(bias)
    outputs = operator(torch.ones_like(make_input()))[0, -1, -1]
    return outputs[0].item()


@pytest.mark.parametrize("neighborhood", NEIGHBORHOODS)
def test_the_outside_rules_differ_by_what_a_tap_outside_adds(neighborhood: str) -> None:
    config = AttentionConfig(neighborhood=neighborhood, window_size=4, kernel_size=3)
    outputs = {border: _corner_output(config, border) for border in BORDERS[neighborhood]}
    counted_inside = {"mask", "shift"} & set(outputs)
    assert all(outputs[border] == pytest.approx(3.0) for border in counted_inside)
    weight_inside = outputs["zero"] / 3.0
    assert 0.05 < weight_inside < 0.95
    assert outputs["project"] == pytest.approx(3.0 * weight_inside + 1.0 * (1.0 - weight_inside))


def test_under_zero_an_unweighted_kernel_counts_the_taps_outside() -> None:
    config = AttentionConfig(parameterization=("query_key",), neighborhood="sliding_window", kernel_size=3)
    operator = make_operator(config)
    with torch.no_grad():
        assert operator.parameterization.q is not None
        operator.parameterization.q.weight.zero_()
        operator.parameterization.q.bias.zero_()
        for linear, bias in ((operator.v, 9.0), (operator.proj, 0.0)):
            linear.weight.copy_(torch.eye(DIM) if linear is operator.proj else torch.zeros(DIM, DIM))
            linear.bias.fill_(bias)
    y = operator(make_input())[0]
    assert torch.allclose(y[0, 0], torch.full((DIM,), 4.0, dtype=torch.float64))
    assert torch.allclose(y[0, 1], torch.full((DIM,), 6.0, dtype=torch.float64))
    assert torch.allclose(y[1, 1], torch.full((DIM,), 9.0, dtype=torch.float64))


@pytest.mark.parametrize("name", NORMALIZATIONS)
@pytest.mark.parametrize("masked", [False, True], ids=["all-taps", "some-taps"])
def test_weights_keep_what_their_normalization_declares(name: str, masked: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 5, 9, dtype=torch.float64, generator=generator)
    valid = torch.rand(5, 9, generator=generator) < 0.6
    valid[:, :2] = True
    normalization = NORMALIZATIONS[name]()
    counted = valid if masked else None
    weights = normalization(logits, counted)
    if masked:
        assert (weights[..., ~valid] == 0).all() if valid.ndim == 1 else (weights * ~valid == 0).all()
    if normalization.weight_sum is not None:
        assert torch.allclose(weights.sum(-1), torch.full(weights.shape[:-1], normalization.weight_sum).double())
    moved = normalization(logits + 3.0, counted)
    assert torch.allclose(moved, weights) == normalization.ignores_constant


def test_filter_norm_has_the_gain_of_ddf() -> None:
    weights = NORMALIZATIONS["filter_norm"]()(torch.randn(4, 49, dtype=torch.float64), None)
    assert torch.allclose(weights.std(-1), torch.full((4,), math.sqrt(2) / 7, dtype=torch.float64))


@pytest.mark.parametrize("value", [0.0, 0.1, 0.37, 1.3e4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_filter_norm_of_a_constant_is_zero_with_finite_gradients(value: float, dtype: torch.dtype) -> None:
    logits = torch.full((2, 49), value, dtype=dtype, requires_grad=True)
    weights = NORMALIZATIONS["filter_norm"]()(logits, None)
    weights.sum().backward()
    assert (weights == 0).all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_filter_norm_refuses_a_single_tap() -> None:
    with pytest.raises(ValueError, match="at least 2 counted taps"):
        NORMALIZATIONS["filter_norm"]()(torch.ones(2, 1), None)


def test_moving_the_input_by_the_period_moves_the_output(config: AttentionConfig) -> None:
    operator = make_operator(config)
    rows, columns = operator.neighborhood.period
    geometry = operator.neighborhood.geometry
    margin = [2 * size * dilation for size, dilation in zip(geometry.kernel_size, geometry.dilation, strict=True)]
    height, width = (4 * step // size * size for step, size in zip(margin, (rows, columns), strict=True))
    x = make_input(height, width)
    moved = operator(x.roll((rows, columns), dims=(1, 2)))
    expected = operator(x).roll((rows, columns), dims=(1, 2))
    inner = (slice(None), slice(margin[0], height - margin[0]), slice(margin[1], width - margin[1]))
    assert expected[inner].numel()
    assert torch.allclose(moved[inner], expected[inner], rtol=1e-10, atol=1e-12)


def test_gradients_are_those_of_finite_differences(config: AttentionConfig) -> None:
    shift_size = (1, 0) if config.shift_size else None
    sizes = {"window_size": (2, 2), "kernel_size": (3, 1), "chunk_size": (2, 1)}
    small = replace(config, shift_size=shift_size, hadamard_size=config.hadamard_size and 1, **sizes)
    operator = make_operator(small, dim=4, num_heads=2)
    x = make_input(5, 2, 4)[:1].requires_grad_()
    names = [name for name, _ in operator.named_parameters()]

    def call(image: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(operator, dict(zip(names, parameters, strict=True)), (image,))

    for backend in ("reference", "auto"):
        operator.backend = backend
        assert torch.autograd.gradcheck(call, (x, *operator.parameters()), fast_mode=True)
