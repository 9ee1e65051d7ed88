"""Strict Hadamard attention (Eq. 7 of arXiv:2112.12786) by the three routes of Algorithms 2 to 4, as one reads them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad, unfold

from paradigms.attention import LocalAttention
from paradigms.config import AttentionConfig
from paradigms.kernels import cpu

from ..conftest import DIM, HEADS, make_input, make_operator

ROWS, COLUMNS = KERNEL = (3, 5)
TAPS = ROWS * COLUMNS
HALO = (ROWS // 2, COLUMNS // 2)
CONFIG = AttentionConfig(parameterization=("hadamard",), neighborhood="sliding_window", kernel_size=KERNEL)
SIZES = {"large": (9, 8), "smaller-than-the-kernel": (2, 3), "one-pixel": (1, 1)}

Route = Callable[[LocalAttention, Tensor], Tensor]
sizes = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())


def _multiply(operator: LocalAttention, x: Tensor) -> Tensor:
    """hp = q⊙k: (batch, channels, height, width)."""
    return (operator.parameterization.q(x) * operator.parameterization.k(x)).permute(0, 3, 1, 2)


def _one_hot() -> Tensor:
    """For each tap the kernel, (1, rows, columns), that reads it."""
    return torch.eye(TAPS, dtype=torch.float64).view(TAPS, 1, *KERNEL)


def gather(operator: LocalAttention, x: Tensor) -> Tensor:
    """Algorithm 2: the products themselves are unfolded. Logits (batch, heads, taps, height, width)."""
    terms, product = operator.parameterization, _multiply(operator, x)
    copies = unfold(product, KERNEL, padding=HALO).unflatten(1, (DIM, TAPS)).unflatten(-1, product.shape[2:])
    own = torch.einsum("bchw,gkc->bgkhw", product, terms.rk.weight)
    heard = torch.einsum("bckhw,gkc->bgkhw", copies, terms.rq.weight)
    return own + heard + terms.rb.weight[..., None, None]


def shift(operator: LocalAttention, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Algorithm 3: two 1x1 convolutions, and a fixed depthwise one that brings what neighbors made."""
    terms, product = operator.parameterization, _multiply(operator, x)
    own = conv2d(product, terms.rk.weight.reshape(-1, DIM, 1, 1), terms.rb.weight.flatten())
    said = conv2d(product, terms.rq.weight.reshape(-1, DIM, 1, 1), None if bias is None else bias.flatten())
    heard = conv2d(said, _one_hot().repeat(HEADS, 1, 1, 1), padding=HALO, groups=HEADS * TAPS)
    return (own + heard).unflatten(1, (HEADS, TAPS))


def merge(operator: LocalAttention, x: Tensor) -> Tensor:
    """Algorithm 4: one 1x1 convolution to pairs, and a fixed one whose groups each add a pair up."""
    terms, product = operator.parameterization, _multiply(operator, x)
    weight = torch.stack([terms.rk.weight, terms.rq.weight], dim=2).reshape(-1, DIM, 1, 1)
    bias = torch.stack([terms.rb.weight, torch.zeros_like(terms.rb.weight)], dim=2).flatten()
    centre = pad(torch.ones(TAPS, 1, 1, 1, dtype=torch.float64), (HALO[1], HALO[1], HALO[0], HALO[0]))
    fixed = torch.cat([centre, _one_hot()], dim=1).repeat(HEADS, 1, 1, 1)
    added = conv2d(conv2d(product, weight, bias), fixed, padding=HALO, groups=HEADS * TAPS)
    return added.unflatten(1, (HEADS, TAPS))


ROUTES = {"gather": gather, "shift": shift, "merge": merge}


def _attend(operator: LocalAttention, x: Tensor, route: Route) -> Tensor:
    """From logits to the operator's output: softmax over all taps, zeros outside."""
    v = operator.v(x).permute(0, 3, 1, 2)
    copies = unfold(v, KERNEL, padding=HALO).view(len(x), HEADS, DIM // HEADS, TAPS, *x.shape[1:3])
    mapped = torch.einsum("bgkhw,bgdkhw->bhwgd", route(operator, x).softmax(dim=2), copies)
    return operator.proj(mapped.flatten(-2))  # type: ignore[no-any-return]


def _differentiate(operator: LocalAttention, call: Callable[[Tensor], Tensor], size: tuple[int, int]) -> list[Tensor]:
    """The output, and the gradient of every parameter and of the input."""
    x = make_input(*size).requires_grad_()
    y = call(x)
    weight = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(4))
    return [y, *torch.autograd.grad((y * weight).sum(), [x, *operator.parameters()])]


def _assert_equal(actual: list[Tensor], expected: list[Tensor]) -> None:
    scale = max(float(tensor.detach().abs().max()) for tensor in expected)
    for a, e in zip(actual, expected, strict=True):
        assert float((a - e).detach().abs().max()) <= 1e-12 * scale


@sizes
@pytest.mark.parametrize("route", ["shift", "merge"])
def test_the_three_routes_are_one(route: str, size: tuple[int, int]) -> None:
    operator = make_operator(CONFIG)
    expected, actual = (
        _differentiate(operator, lambda x, way=way: _attend(operator, x, way), size)  # type: ignore[misc]
        for way in (gather, ROUTES[route])
    )
    _assert_equal(actual, expected)


@sizes
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "backend",
    ["reference", "torch", pytest.param("cpu", marks=pytest.mark.skipif(not cpu.is_available(), reason="not built"))],
)
def test_the_operator_is_every_route(backend: str, route: str, size: tuple[int, int]) -> None:
    operator = make_operator(CONFIG)
    operator.backend = backend
    expected = _differentiate(operator, lambda x: _attend(operator, x, ROUTES[route]), size)
    _assert_equal(_differentiate(operator, operator, size), expected)


def test_a_bias_on_the_shifted_branch_is_lost_at_the_border() -> None:
    """Inside it would be one more r^b; what a tap outside the map would have said is zero instead."""
    operator, x = make_operator(CONFIG), make_input()
    bias = torch.randn(HEADS, TAPS, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    difference = shift(operator, x, bias) - gather(operator, x)
    outside = unfold(torch.zeros_like(x[:1, ..., 0])[:, None] + 1, KERNEL, padding=HALO) == 0
    outside = outside.view(1, 1, TAPS, *x.shape[1:3]).expand_as(difference)
    expected = torch.where(outside, 0, bias[None, :, :, None, None])
    assert outside.any()
    assert torch.allclose(difference, expected, atol=1e-12)
