"""The composed path over sliding windows equals the reference for every normalization and border."""

import pytest
import torch
from torch import Tensor

from paradigms.functional import Aggregation, Geometry
from paradigms.kernels import dense, reference, sliding_window
from paradigms.kernels.problem import Problem
from paradigms.normalization import NORMALIZATIONS

from .conftest import ALL_TERMS, assert_close, change_operands, make_grad, make_problem, operands_of

SUBSETS = [*ALL_TERMS.split("+"), "query_key+position_key", "query_position+position_bias", ALL_TERMS]
PAIRS = [((1, 9), (7, 7), (1, 1)), ((9, 5), (3, 5), (2, 1)), ((3, 12), (5, 5), (1, 2)), ((1, 1), (3, 3), (1, 1))]


def _run(attend: object, problem: Problem, normalization: str) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in operands_of(problem)]
    problem = change_operands(problem, leaves)
    norm = NORMALIZATIONS[normalization]()
    out = attend(problem.terms, problem.v, problem.geometry, norm, Aggregation(), problem.outside, 0.0)
    return [out.detach(), *torch.autograd.grad(out, leaves, make_grad(problem), materialize_grads=True)]


@pytest.mark.parametrize("terms", SUBSETS)
@pytest.mark.parametrize("border", ["zero", "mask", "project"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_every_normalization_border_and_subset_of_the_terms(normalization: str, border: str, terms: str) -> None:
    problem = make_problem(Geometry("sliding", (3, 5), (2, 1), border), (9, 5), terms=terms)
    expected = _run(reference.attend, problem, normalization)
    assert_close(_run(sliding_window.attend, problem, normalization), expected, 1e-12)
    if border != "project":
        assert_close(_run(dense.attend, problem, normalization), expected, 1e-12)


@pytest.mark.parametrize(("size", "kernel_size", "dilation"), PAIRS, ids=str)
@pytest.mark.parametrize("terms", ["position_bias", ALL_TERMS])
@pytest.mark.parametrize("border", ["zero", "mask", "project"])
def test_every_map(
    border: str, terms: str, size: tuple[int, int], kernel_size: tuple[int, int], dilation: tuple[int, int]
) -> None:
    problem = make_problem(Geometry("sliding", kernel_size, dilation, border), size, terms=terms)
    expected = _run(reference.attend, problem, "softmax")
    assert_close(_run(sliding_window.attend, problem, "softmax"), expected, 1e-12)
    if border != "project":
        assert_close(_run(dense.attend, problem, "softmax"), expected, 1e-12)


@pytest.mark.parametrize("attend", [sliding_window.attend, dense.attend], ids=["composed", "dense"])
@pytest.mark.parametrize("terms", ["position_bias", ALL_TERMS])
def test_an_empty_batch_gives_empty_maps(attend: object, terms: str) -> None:
    problem = make_problem(Geometry("sliding", (3, 3)), (4, 5), terms=terms, batch=0)
    found = _run(attend, problem, "softmax")
    assert [x.shape for x in found] == [problem.v.shape, *(x.shape for x in operands_of(problem))]


def test_it_can_be_differentiated_twice() -> None:
    problem = make_problem(Geometry("sliding", (3, 1)), (2, 3), batch=1, heads=1, head_dim=2)
    leaves = [x.requires_grad_() for x in operands_of(problem)]

    def call(*operands: Tensor) -> Tensor:
        terms, v, geometry, outside, _ = change_operands(problem, list(operands))
        return sliding_window.attend(terms, v, geometry, NORMALIZATIONS["softmax"](), Aggregation(), outside, 0.0)

    assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)


def test_weights_that_every_pixel_shares_are_not_expanded() -> None:
    problem = make_problem(Geometry("sliding", (3, 3)), (4, 5), terms="position_bias")
    with torch.profiler.profile() as profile:
        _run(sliding_window.attend, problem, "softmax")
    names = {event.key for event in profile.key_averages()}
    assert any("conv" in name for name in names)
    assert not any("paradigms::mix" in name for name in names)
