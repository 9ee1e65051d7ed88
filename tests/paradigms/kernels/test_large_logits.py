"""Softmax in float32 where logits are large: as exact as float32 logits allow, in every backend."""

import pytest
import torch
from torch import Tensor

from paradigms import kernels
from paradigms.functional import Aggregation, Geometry, gather_taps, make_logits, make_neighbors
from paradigms.kernels import cpu
from paradigms.kernels.problem import Problem
from paradigms.normalization import Softmax

from .conftest import (
    assert_close,
    change_operands,
    make_grad,
    make_problem,
    operands_of,
    relative_errors,
    run_reference,
)

needs_library = pytest.mark.skipif(not cpu.is_available(), reason="the library is not built")

SLIDING = Geometry("sliding", (3, 5))
CASES = {
    "cpu-sliding": ("cpu", SLIDING),
    "cpu-shift": ("cpu", Geometry("sliding", (3, 3), (2, 1), "shift")),
    "cpu-windows": ("cpu", Geometry("window", (3, 4), border="project", shift=(1, 1))),
    "torch-sliding": ("torch", SLIDING),
    "torch-offsets": ("torch", Geometry("sliding", (5, 5), (5, 4), "mask")),
    "torch-windows": ("torch", Geometry("window", (3, 4), border="project", shift=(1, 1))),
    "torch-chunks": ("torch", Geometry("chunk", (6, 9), border="mask")),
    "dense": ("dense", SLIDING),
}
every_case = pytest.mark.parametrize(
    ("backend", "geometry"),
    [
        pytest.param(*levels, id=name, marks=needs_library if levels[0] == "cpu" else ())
        for name, levels in CASES.items()
    ],
)


def _find_largest_logit(problem: Problem) -> float:
    terms, geometry = problem.terms, problem.geometry
    index, valid, offset = make_neighbors(geometry, *problem.v.shape[1:3])
    assert terms.k is not None
    logits = make_logits(terms, gather_taps(terms.k, problem.outside.k, index), offset)
    return float(logits.masked_fill(~valid, 0).abs().max())


def _make_problem(geometry: Geometry, largest: float) -> Problem:
    """Every term in proportion, so that the largest counted logit has this size."""
    problem = make_problem(geometry, (9, 10), dtype=torch.float32)
    factor = largest / _find_largest_logit(problem)
    q, k, rk, rq, rb, _ = problem.terms
    assert q is not None and k is not None and rk is not None and rq is not None and rb is not None
    root = factor**0.5
    outside = problem.outside._replace(k=None if problem.outside.k is None else root * problem.outside.k)
    terms = problem.terms._replace(q=root * q, k=root * k, rk=root * rk, rq=root * rq, rb=factor * rb)
    return problem._replace(terms=terms, outside=outside)


def _run(problem: Problem, backend: str) -> list[Tensor]:
    """The output and every gradient, in float32."""
    leaves = [x.detach().clone().requires_grad_() for x in operands_of(problem)]
    asked = change_operands(problem, leaves)
    arguments = asked.terms, asked.v, problem.geometry, Softmax(), Aggregation()
    out = kernels.attend(*arguments, outside=asked.outside, backend=backend)
    return [out.detach(), *torch.autograd.grad(out, leaves, make_grad(problem))]


@every_case
def test_float32_is_exact_to_the_stated_tolerance_within_the_stated_range_of_logits(
    backend: str, geometry: Geometry
) -> None:
    problem = _make_problem(geometry, 100)
    assert_close(_run(problem, backend), run_reference(problem, make_grad(problem)), 1e-5)


@pytest.mark.parametrize("largest", [300.0, 3e3, 1e4])
@every_case
def test_gradients_at_large_logits_lose_no_more_than_the_reference_does(
    backend: str, geometry: Geometry, largest: float
) -> None:
    """The logits' own rounding is all that is lost: weights that are recomputed still sum to one."""
    problem = _make_problem(geometry, largest)
    exact = run_reference(problem, make_grad(problem))
    errors = relative_errors(_run(problem, backend), exact)
    of_reference = relative_errors(_run(problem, "reference"), exact)
    assert all(error <= 4 * max(allowed, 1e-6) for error, allowed in zip(errors, of_reference, strict=True))


@every_case
def test_a_constant_in_all_logits_costs_no_more_than_their_rounding(backend: str, geometry: Geometry) -> None:
    """1e4 in every entry of r^b changes no weight; it takes 2^-11 from the logits' last digit."""
    problem = _make_problem(geometry, 10)
    assert problem.terms.rb is not None
    problem = problem._replace(terms=problem.terms._replace(rb=problem.terms.rb + 1e4))
    assert max(relative_errors(_run(problem, backend), run_reference(problem, make_grad(problem)))) <= 2e-3
