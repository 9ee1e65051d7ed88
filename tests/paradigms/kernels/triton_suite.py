"""What the Triton backend promises. `test_triton.py` runs it, in a process of its own: see there.

On a GPU where there is one, else in Triton's interpreter, which is slow: small maps, few programs.
"""

import os
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from paradigms.functional import Aggregation, Geometry, Outside, Terms, make_neighbors
from paradigms.kernels import offset, primitive, reference
from paradigms.kernels.fused import attend
from paradigms.kernels.problem import Operands, Problem
from paradigms.kernels.triton_kernels import is_available
from paradigms.normalization import Softmax

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
NOTHING = Outside(None, None)
SIXTEEN_BITS = {torch.float16: 4e-4} if INTERPRETED else {torch.float16: 4e-4, torch.bfloat16: 2.5e-3}
"""Relative L2 errors; the interpreter computes wrongly with bfloat16."""
ALL = "qk rk rq rb"


class Shape(NamedTuple):
    batch: int
    height: int
    width: int
    heads: int
    head_dim: int


def _sliding(kernel_size: tuple[int, int], border: str, dilation: tuple[int, int] = (1, 1)) -> Geometry:
    return Geometry("sliding", kernel_size, dilation, border)


def _make_problem(geometry: Geometry, shape: Shape, terms: str = ALL, dtype: torch.dtype = torch.float64) -> Problem:
    generator = torch.Generator().manual_seed(5)
    present = terms.split()

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(DEVICE, dtype)

    def draw_if(needed: bool, *size: int) -> Tensor | None:
        return draw(*size) if needed else None

    table = shape.heads, geometry.num_offsets
    q = draw_if("qk" in present or "rk" in present, *shape)
    k = draw_if("qk" in present or "rq" in present, *shape)
    rk = draw_if("rk" in present, *table, shape.head_dim)
    rq = draw_if("rq" in present, *table, shape.head_dim)
    rb = draw_if("rb" in present, *table)
    scale = shape.head_dim**-0.5 if "qk" in present else None
    return Problem(Terms(q, k, rk, rq, rb, scale), draw(*shape), geometry, NOTHING, None)


def _to_operands(problem: Problem) -> dict[str, Tensor]:
    terms = problem.terms
    operands = Operands(terms.q, terms.k, problem.v, terms.rk, terms.rq, terms.rb)._asdict()
    return {name: tensor for name, tensor in operands.items() if tensor is not None}


def _replace(problem: Problem, operands: dict[str, Tensor]) -> Problem:
    terms = {name: tensor for name, tensor in operands.items() if name != "v"}
    return problem._replace(terms=problem.terms._replace(**terms), v=operands["v"])


class _Dropped(Softmax):
    """Softmax, then weights times given factors (batch, heads, queries, taps)."""

    def __init__(self, factors: Tensor) -> None:
        self.factors = factors

    def __call__(self, logits: Tensor, valid: Tensor | None) -> Tensor:
        return super().__call__(logits, valid) * self.factors


def _run(problem: Problem, backend: str, *, dropout_p: float = 0.0, factors: Tensor | None = None) -> dict[str, Tensor]:
    """Output and gradients; the reference in float64."""
    exact = backend == "reference"
    operands = {name: x.detach().to(torch.float64 if exact else x.dtype) for name, x in _to_operands(problem).items()}
    operands = {name: x.requires_grad_() for name, x in operands.items()}
    asked = _replace(problem, operands)
    if exact:
        normalization = Softmax() if factors is None else _Dropped(factors)
        out = reference.attend(asked.terms, asked.v, problem.geometry, normalization, Aggregation(), NOTHING, 0.0)
    else:
        torch.manual_seed(11)
        out = attend(asked, dropout_p=dropout_p, backend=backend)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    gradients = torch.autograd.grad(out, list(operands.values()), weight.to(DEVICE, problem.v.dtype).to(out.dtype))
    return {"out": out.detach(), **dict(zip(operands, gradients, strict=True))}


def _assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    for name, e in expected.items():
        a = actual[name].double()
        assert a.shape == e.shape
        error, scale = float((a - e).abs().amax()), max(1.0, float(e.abs().amax()))
        assert error <= tolerance * scale, (name, error, scale)


PROBLEMS = {
    "zero": _make_problem(_sliding((3, 3), "zero"), Shape(2, 9, 5, 1, 5)),
    "mask": _make_problem(_sliding((3, 3), "mask"), Shape(1, 9, 5, 2, 5)),
    "shift": _make_problem(_sliding((3, 3), "shift"), Shape(1, 9, 5, 1, 5)),
    "zero-dilated-low": _make_problem(_sliding((3, 5), "zero", (2, 1)), Shape(1, 3, 12, 1, 8)),
    "mask-dilated-low": _make_problem(_sliding((5, 5), "mask", (1, 2)), Shape(1, 3, 12, 1, 1)),
    "shift-dilated-low": _make_problem(_sliding((3, 3), "shift", (2, 2)), Shape(1, 3, 12, 1, 1)),
    "zero-pixel": _make_problem(_sliding((3, 3), "zero"), Shape(1, 1, 1, 1, 3)),
    "shift-line": _make_problem(_sliding((3, 3), "shift"), Shape(1, 1, 9, 1, 8)),
    "one-tap": _make_problem(_sliding((1, 1), "zero"), Shape(2, 3, 4, 2, 5)),
    "blocks": _make_problem(_sliding((3, 1), "shift"), Shape(1, 9, 5, 1, 40)),
    "empty": _make_problem(_sliding((3, 1), "zero"), Shape(0, 9, 5, 2, 5)),
}


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS.keys())
def test_output_and_gradients_equal_the_reference(problem: Problem) -> None:
    actual, expected = _run(problem, "triton"), _run(problem, "reference")
    if not len(problem.v):
        actual, expected = ({name: x for name, x in run.items() if x.numel()} for run in (actual, expected))
    _assert_equal(actual, expected, 1e-12)


@pytest.mark.parametrize("terms", ["qk", "rk", "rq", "rb", "qk rb", "rk rq"])
def test_some_of_the_terms_equal_the_reference(terms: str) -> None:
    problem = _make_problem(_sliding((3, 1), "zero"), Shape(1, 4, 3, 1, 3), terms)
    _assert_equal(_run(problem, "triton"), _run(problem, "reference"), 1e-12)


def test_what_the_logits_do_not_need_gets_a_gradient_of_zero() -> None:
    problem = _make_problem(_sliding((1, 1), "zero"), Shape(1, 2, 2, 1, 3), "rb")
    needless = torch.randn(problem.v.shape, dtype=torch.float64, device=DEVICE)
    gradients = _run(problem._replace(terms=problem.terms._replace(q=needless, k=needless)), "triton")
    assert not gradients["q"].any()
    assert not gradients["k"].any()


@pytest.mark.parametrize("border", ["zero", "shift"])
def test_float32_equals_the_reference(border: str) -> None:
    problem = _make_problem(_sliding((3, 1), border), Shape(1, 9, 5, 1, 8), dtype=torch.float32)
    _assert_equal(_run(problem, "triton"), _run(problem, "reference"), 1e-5)


def test_gradients_at_large_logits_lose_no_more_than_the_logits_rounding() -> None:
    """Around 1e4, where float32 is exact to 2^-11: weights that are recomputed still sum to one."""
    problem = _make_problem(_sliding((3, 3), "mask"), Shape(1, 4, 5, 1, 8), dtype=torch.float32)
    assert problem.terms.rb is not None
    problem = problem._replace(terms=problem.terms._replace(rb=problem.terms.rb + 1e4))
    expected = _run(problem, "reference")
    for name, actual in _run(problem, "triton").items():
        error = float((actual.double() - expected[name]).norm() / expected[name].norm())
        assert error <= 2e-3, (name, error)


@pytest.mark.parametrize(("dtype", "tolerance"), SIXTEEN_BITS.items(), ids=str)
def test_sixteen_bits_are_rounded_once(dtype: torch.dtype, tolerance: float) -> None:
    problem = _make_problem(_sliding((3, 5), "zero"), Shape(1, 9, 5, 1, 8), dtype=dtype)
    expected = _run(problem, "reference")
    for name, actual in _run(problem, "triton").items():
        assert actual.dtype == dtype
        assert float((actual.double() - expected[name]).norm()) <= tolerance * float(expected[name].norm()), name


def test_tables_may_have_another_type_than_maps() -> None:
    """As under autocast."""
    problem = _make_problem(_sliding((3, 3), "mask"), Shape(1, 4, 5, 1, 3), dtype=torch.float16)
    operands = _to_operands(problem)
    operands |= {name: operands[name].float() for name in ("rk", "rq", "rb")}
    actual = _run(_replace(problem, operands), "triton")
    assert {name: x.dtype for name, x in actual.items()} == {"out": torch.float16} | {
        name: x.dtype for name, x in operands.items()
    }


@pytest.mark.parametrize("layout", [(0, 2, 3, 1, 4), (0, 3, 4, 1, 2)], ids=["heads-first", "channels-first"])
def test_maps_in_any_layout_give_the_same(layout: tuple[int, ...]) -> None:
    problem = _make_problem(_sliding((1, 3), "mask"), Shape(1, 4, 3, 2, 3))
    order = [layout.index(axis) for axis in range(5)]
    operands = _to_operands(problem)
    for name in ("q", "k", "v"):
        operands[name] = operands[name].permute(layout).contiguous().permute(order)
        assert not operands[name].is_contiguous()
    moved = _run(_replace(problem, operands), "triton")
    assert all(torch.equal(moved[name], x) for name, x in _run(problem, "triton").items())


def test_an_expanded_gradient_is_taken() -> None:
    problem = _make_problem(_sliding((3, 1), "zero"), Shape(1, 4, 3, 1, 3))
    found = {}
    for backend in ("triton", "reference"):
        v = problem.v.clone().requires_grad_()
        asked = problem._replace(v=v)
        if backend == "triton":
            out = attend(asked, dropout_p=0.0, backend=backend)
        else:
            out = reference.attend(asked.terms, v, problem.geometry, Softmax(), Aggregation(), NOTHING, 0.0)
        (found[backend],) = torch.autograd.grad(out.sum(), v)
    torch.testing.assert_close(found["triton"], found["reference"])


def _read_factors(problem: Problem, dropout_p: float) -> Tensor:
    """What every weight is multiplied by, (batch, heads, queries, taps), from values that name their pixel."""
    batch, height, width, heads, pixels = problem.v.shape
    names = torch.eye(pixels, dtype=problem.v.dtype, device=DEVICE).view(1, height, width, 1, pixels)
    named = problem._replace(v=names.expand(batch, -1, -1, heads, -1))
    torch.manual_seed(11)
    dropped = attend(named, dropout_p=dropout_p, backend="triton")
    ratio = dropped / attend(named, dropout_p=0.0, backend="triton")
    index = make_neighbors(problem.geometry, height, width, DEVICE).index
    by_pixel = torch.nn.functional.pad(ratio.flatten(1, 2).permute(0, 2, 1, 3), (0, 1))  # outside: any
    return by_pixel.gather(-1, index.expand(batch, heads, -1, -1)).nan_to_num(0.0)


@pytest.mark.parametrize("border", ["zero", "shift"])
def test_dropout_drops_the_same_weights_forward_and_backward(border: str) -> None:
    problem = _make_problem(_sliding((3, 1), border), Shape(2, 4, 3, 2, 12))
    factors = _read_factors(problem, 0.4)
    inside = make_neighbors(problem.geometry, 4, 3, DEVICE).index < 12
    shown = factors[..., inside]
    dropped = shown == 0
    torch.testing.assert_close(shown, torch.where(dropped, 0, 1 / 0.6).to(shown.dtype))
    assert abs(float(dropped.double().mean()) - 0.4) < 4 * (0.24 / shown.numel()) ** 0.5
    assert not torch.equal(factors[0], factors[1])
    assert not torch.equal(factors[:, 0], factors[:, 1])
    _assert_equal(_run(problem, "triton", dropout_p=0.4), _run(problem, "reference", factors=factors), 1e-12)


def test_another_seed_drops_other_weights() -> None:
    problem = _make_problem(_sliding((3, 3), "zero"), Shape(1, 4, 5, 1, 3))
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(attend(problem, dropout_p=0.5, backend="triton"))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert not attend(problem, dropout_p=1.0, backend="triton").any()


def test_results_repeat_to_the_bit() -> None:
    problem = _make_problem(_sliding((1, 3), "zero"), Shape(1, 9, 5, 1, 40), dtype=torch.float32)
    first, second = _run(problem, "triton"), _run(problem, "triton")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("kernel_size", "dilation", "dtype"),
    [((3, 5), (2, 1), torch.float64), ((3, 3), (1, 2), torch.float16), ((1, 1), (1, 1), torch.float32)],
    ids=["wide", "half", "one-tap"],
)
def test_the_primitives_equal_those_of_torch(
    kernel_size: tuple[int, int], dilation: tuple[int, int], dtype: torch.dtype
) -> None:
    geometry = Geometry("sliding", kernel_size, dilation)
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn(2, 2, 3, 2, 9, 5, generator=generator).to(DEVICE, dtype).permute(0, 1, 4, 5, 3, 2)  # strided
    weights = torch.randn(2, 9, 5, 2, geometry.num_taps, generator=generator).to(DEVICE, dtype)
    tolerance = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 2e-3}[dtype]
    close = {"rtol": tolerance, "atol": tolerance}
    filters = torch.randn(2, 2, geometry.num_taps, 3, generator=generator).to(DEVICE, dtype).transpose(0, 1)
    triton = {"geometry": geometry, "backend": "triton"}
    for given in (None, filters):
        found = primitive.dot(a, b, filters=given, **triton), primitive.mix(weights, b, filters=given, **triton)
        torch.testing.assert_close(found[0], offset.dot(a, b, given, geometry), **close)
        torch.testing.assert_close(found[1], offset.mix(weights, b, given, geometry), **close)
        assert torch.equal(primitive.dot(a[:0], b[:0], **triton), found[0][:0])
    found = primitive.correlate(weights, a, b, **triton)
    torch.testing.assert_close(found, offset.correlate(weights, a, b, geometry), **close)
    assert torch.equal(primitive.correlate(weights[:0], a[:0], b[:0], **triton), found[:0])
    assert torch.equal(primitive.reverse(weights, **triton), offset.reverse(weights, geometry))


def test_the_backend_says_where_it_runs() -> None:
    assert is_available(DEVICE)
    assert is_available(torch.device("cpu")) is INTERPRETED
    assert not is_available(torch.device("meta"))
