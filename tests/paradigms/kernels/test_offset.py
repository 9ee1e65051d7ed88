"""Fused attention as a loop over offsets: equal to the reference."""

import pytest
import torch

from paradigms.functional import Geometry
from paradigms.kernels import offset
from paradigms.kernels.problem import Dropout

from .conftest import (
    ALL_TERMS,
    assert_close,
    change_operands,
    make_grad,
    make_problem,
    operands_of,
    relative_errors,
    run_backend,
    run_reference,
)

PAIRS = [
    ("zero", (3, 5), (1, 1), (9, 5)),
    ("zero", (7, 7), (1, 1), (3, 12)),
    ("zero", (1, 1), (1, 1), (1, 1)),
    ("mask", (3, 5), (2, 1), (9, 5)),
    ("mask", (7, 7), (1, 1), (1, 9)),
    ("mask", (5, 5), (2, 3), (14, 7)),
    ("shift", (3, 5), (1, 1), (8, 8)),
    ("shift", (5, 3), (2, 3), (9, 5)),
    ("shift", (7, 7), (1, 1), (3, 12)),
]


@pytest.mark.parametrize(("border", "kernel_size", "dilation", "size"), PAIRS, ids=str)
def test_it_equals_the_reference(
    border: str, kernel_size: tuple[int, int], dilation: tuple[int, int], size: tuple[int, int]
) -> None:
    problem = make_problem(Geometry("sliding", kernel_size, dilation, border), size)
    assert_close(run_backend(offset, problem, make_grad(problem)), run_reference(problem, make_grad(problem)), 1e-12)


@pytest.mark.parametrize("terms", [*ALL_TERMS.split("+"), "query_key+position_key", "query_position+position_bias"])
def test_every_subset_of_the_terms(terms: str) -> None:
    problem = make_problem(Geometry("sliding", (3, 3), border="mask"), (4, 6), terms=terms)
    assert_close(run_backend(offset, problem, make_grad(problem)), run_reference(problem, make_grad(problem)), 1e-12)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2.5e-3), (torch.float16, 4e-4)], ids=str)
def test_16_bit_operands_are_computed_with_in_float32(dtype: torch.dtype, bound: float) -> None:
    problem = make_problem(Geometry("sliding", (5, 5)), (9, 7), head_dim=8, dtype=dtype)
    grad = make_grad(problem)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run_backend(offset, problem, grad)
    assert all(error <= bound for error in relative_errors(found, run_reference(problem, grad)))


def test_an_empty_batch_gives_empty_maps() -> None:
    problem = make_problem(Geometry("sliding", (3, 3)), (4, 5), batch=0)
    found = run_backend(offset, problem, make_grad(problem))
    assert [x.shape for x in found] == [problem.v.shape, *(x.shape for x in operands_of(problem))]


def test_the_backward_pass_drops_what_the_forward_pass_dropped() -> None:
    problem = make_problem(Geometry("sliding", (3, 3)), (5, 3), head_dim=2, dropout=Dropout(0.4, 11))
    operands, grad = operands_of(problem), make_grad(problem)
    out, *gradients = run_backend(offset, problem, grad)
    assert not torch.equal(out, offset.attention(problem._replace(dropout=None))[0])
    for index, gradient in enumerate(gradients):
        step = 1e-6 * torch.randn(gradient.shape, dtype=gradient.dtype, generator=torch.Generator().manual_seed(index))
        moved = [[x + sign * step if at == index else x for at, x in enumerate(operands)] for sign in (1, -1)]
        ends = [(offset.attention(change_operands(problem, each))[0] * grad).sum() for each in moved]
        assert float((ends[0] - ends[1]) / 2) == pytest.approx(float((gradient * step).sum()), rel=1e-6, abs=1e-12)
