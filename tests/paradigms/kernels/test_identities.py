"""What attention must be equal to by its definition, whichever kernel computes it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, scaled_dot_product_attention, unfold

from paradigms import kernels
from paradigms.functional import Aggregation, Geometry
from paradigms.kernels import primitive
from paradigms.kernels.problem import Problem
from paradigms.normalization import NORMALIZATIONS

from .conftest import ALL_TERMS, make_problem

BACKENDS = [
    "reference",
    "dense",
    "torch",
    pytest.param("cpu", marks=pytest.mark.skipif(not kernels.cpu.is_available(), reason="the library is not built")),
]
PRIMITIVES = [backend for backend in BACKENDS if backend not in ("reference", "dense")]
DILATIONS = [(1, 1), (2, 1)]


def _attend(problem: Problem, backend: str, normalization: str = "softmax") -> Tensor:
    norm = NORMALIZATIONS[normalization]()
    return kernels.attend(
        problem.terms, problem.v, problem.geometry, norm, Aggregation(), outside=problem.outside, backend=backend
    )


def _assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert bool(((actual - expected).abs() <= 1e-12 * max(1.0, float(expected.abs().max()))).all())


def _to_images(x: Tensor) -> Tensor:
    """Channels first: (batch, heads * head_dim, height, width)."""
    return x.flatten(3).permute(0, 3, 1, 2)


def _to_maps(x: Tensor, like: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(like.shape)


def _pad_table(table: Tensor, size: tuple[int, int]) -> Tensor:
    """From the k offsets of a centred kernel's axes to the 2k - 1 of a clamped one's."""
    grown = table.new_full((len(table), 2 * size[0] - 1, 2 * size[1] - 1, *table.shape[2:]), 1e3)
    rows, columns = (slice(k // 2, k // 2 + k) for k in size)
    grown[:, rows, columns] = table.unflatten(1, size)
    return grown.flatten(1, 2)


@pytest.mark.parametrize("dilation", DILATIONS, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_away_from_the_border_its_rule_changes_nothing(backend: str, dilation: tuple[int, int]) -> None:
    size = 3, 5
    problem = make_problem(Geometry("sliding", size, dilation), (9, 8))
    inner = slice(None), slice(dilation[0], -dilation[0]), slice(2 * dilation[1], -2 * dilation[1])
    expected = _attend(problem, backend)
    masked = _attend(problem._replace(geometry=replace(problem.geometry, border="mask")), backend)
    _assert_close(masked[inner], expected[inner])
    assert not torch.allclose(masked[:, 0], expected[:, 0])
    if backend == "dense":
        return
    tables = {name: _pad_table(getattr(problem.terms, name), size) for name in ("rk", "rq", "rb")}
    clamped = problem._replace(
        terms=problem.terms._replace(**tables), geometry=replace(problem.geometry, border="shift")
    )
    _assert_close(_attend(clamped, backend)[inner], expected[inner])


@pytest.mark.parametrize("terms", [ALL_TERMS, "query_key", "position_key+position_bias"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_kernel_that_covers_the_map_from_everywhere_is_one_window(backend: str, terms: str) -> None:
    """Both have tables of 2H - 1 by 2W - 1 offsets."""
    height, width = 3, 4
    problem = make_problem(
        Geometry("sliding", (2 * height - 1, 2 * width - 1), border="mask"), (height, width), terms=terms
    )
    found = _attend(problem, backend)
    if backend != "dense":
        _assert_close(found, _attend(problem._replace(geometry=Geometry("window", (height, width))), backend))
    if terms == "query_key":
        q, k, v = (x.flatten(1, 2).transpose(1, 2) for x in (problem.terms.q, problem.terms.k, problem.v))
        whole = scaled_dot_product_attention(q, k, v, scale=problem.terms.scale)
        _assert_close(found, whole.transpose(1, 2).reshape(found.shape))


@pytest.mark.parametrize("dilation", DILATIONS, ids=str)
@pytest.mark.parametrize("normalization", ["softmax", "identity"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_position_biases_alone_are_a_depthwise_convolution(
    backend: str, normalization: str, dilation: tuple[int, int]
) -> None:
    problem = make_problem(Geometry("sliding", (3, 5), dilation), (7, 9), terms="position_bias")
    heads, head_dim = problem.v.shape[-2:]
    assert problem.terms.rb is not None
    kernel = problem.terms.rb.softmax(dim=-1) if normalization == "softmax" else problem.terms.rb
    kernel = kernel.view(heads, 1, 3, 5).repeat_interleave(head_dim, dim=0)
    halo = dilation[0], 2 * dilation[1]
    convolved = conv2d(_to_images(problem.v), kernel, padding=halo, dilation=dilation, groups=heads * head_dim)
    _assert_close(_attend(problem, backend, normalization), _to_maps(convolved, problem.v))


def _make_taps(problem: Problem) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(*problem.v.shape[:-1], problem.geometry.num_taps, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("dilation", DILATIONS, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_generated_filters_are_an_involution(backend: str, dilation: tuple[int, int]) -> None:
    """q·r^k without a normalization (arXiv:2103.06255): each query's filter is a linear map of it."""
    problem = make_problem(Geometry("sliding", (3, 5), dilation), (7, 9), terms="query_position")
    filters = torch.einsum("byxhd,hkd->byxhk", problem.terms.q, problem.terms.rk)
    found = _attend(problem, backend, "identity")
    copies = unfold(_to_images(problem.v), (3, 5), dilation=dilation, padding=(dilation[0], 2 * dilation[1]))
    copies = copies.view(len(problem.v), *problem.v.shape[3:], 15, *problem.v.shape[1:3])
    _assert_close(found, torch.einsum("byxhk,bhdkyx->byxhd", filters, copies))
    if backend not in ("reference", "dense"):
        _assert_close(found, primitive.mix(filters, problem.v, problem.geometry, backend=backend))


@pytest.mark.parametrize("size", [(7, 9), (2, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("dilation", DILATIONS, ids=str)
@pytest.mark.parametrize("backend", PRIMITIVES)
def test_the_primitives_are_each_others_adjoints(
    backend: str, dilation: tuple[int, int], size: tuple[int, int]
) -> None:
    problem = make_problem(Geometry("sliding", (3, 5), dilation), size)
    a, b, g = problem.terms.q, problem.v, _make_taps(problem)
    how = {"geometry": problem.geometry, "backend": backend}
    product = (primitive.dot(a, b, **how) * g).sum()
    _assert_close((a * primitive.mix(g, b, **how)).sum(), product)
    _assert_close((b * primitive.mix(primitive.reverse(g, **how), a, **how)).sum(), product)
    m = torch.randn(
        len(a), a.shape[3], g.shape[-1], a.shape[4], dtype=a.dtype, generator=torch.Generator().manual_seed(4)
    )
    product = (primitive.dot(a, b, filters=m, **how) * g).sum()
    _assert_close((a * primitive.mix(g, b, filters=m, **how)).sum(), product)
    _assert_close((b * primitive.mix(primitive.reverse(g, **how), a, filters=m.flip(2), **how)).sum(), product)
    _assert_close((m * primitive.correlate(g, a, b, **how)).sum(), product)
    _assert_close(
        (primitive.reverse(g, **how) * _make_taps(problem).flip(1)).sum(),
        (g * primitive.reverse(_make_taps(problem).flip(1), **how)).sum(),
    )


@pytest.mark.parametrize("size", [(7, 9), (2, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("dilation", DILATIONS, ids=str)
@pytest.mark.parametrize("backend", PRIMITIVES)
def test_reversing_twice_gives_back_the_taps_inside_the_map(
    backend: str, dilation: tuple[int, int], size: tuple[int, int]
) -> None:
    problem = make_problem(Geometry("sliding", (3, 5), dilation), size)
    taps = _make_taps(problem)
    ones = torch.ones_like(problem.v[..., :1])
    inside = primitive.dot(ones, ones, problem.geometry, backend=backend)
    assert torch.equal(inside, inside.bool().double())
    reverse = primitive.reverse(taps, problem.geometry, backend=backend)
    assert torch.equal(primitive.reverse(reverse, problem.geometry, backend=backend), taps * inside)
