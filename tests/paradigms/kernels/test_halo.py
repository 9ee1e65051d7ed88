"""Fused attention in plain torch, by blocks with their halos: equal to the reference, in every corner."""

import pytest
import torch
from torch import Tensor

from paradigms.functional import Geometry
from paradigms.kernels import fused, halo, offset
from paradigms.kernels.blocks import cut_map, cut_parts
from paradigms.kernels.problem import Dropout, Problem

from ..covering import pairwise
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

SIZES = [(1, 1), (1, 9), (3, 12), (9, 5), (14, 7), (8, 8)]
KERNELS = [(1, 1), (3, 3), (5, 5), (7, 7), (3, 5)]
BORDERS = ["zero", "mask", "shift"]
SUBSETS = [
    "query_key",
    "query_position",
    "position_key",
    "position_bias",
    "query_key+position_bias",
    "query_position+position_key",
    ALL_TERMS,
]


@pytest.fixture(autouse=True)
def _blocks_even_where_they_waste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halo, "MAX_PAIRS_PER_TAP", 1000)
    monkeypatch.setattr(halo, "MAX_PHASES", 1000)


def _assert_equals_the_reference(problem: Problem) -> None:
    grad = make_grad(problem)
    assert_close(run_backend(halo, problem, grad), run_reference(problem, grad), 1e-12)


@pytest.mark.parametrize(("border", "kernel_size", "size"), pairwise(BORDERS, KERNELS, SIZES), ids=str)
def test_every_kernel_on_every_map(border: str, kernel_size: tuple[int, int], size: tuple[int, int]) -> None:
    _assert_equals_the_reference(make_problem(Geometry("sliding", kernel_size, border=border), size))


@pytest.mark.parametrize("terms", SUBSETS)
@pytest.mark.parametrize("border", BORDERS)
def test_every_subset_of_the_terms(border: str, terms: str) -> None:
    _assert_equals_the_reference(make_problem(Geometry("sliding", (3, 5), border=border), (9, 5), terms=terms))


@pytest.mark.parametrize(("border", "dilation", "size"), pairwise(BORDERS, [(2, 2), (1, 3), (10, 2)], SIZES), ids=str)
def test_every_dilation_on_every_map(border: str, dilation: tuple[int, int], size: tuple[int, int]) -> None:
    _assert_equals_the_reference(make_problem(Geometry("sliding", (3, 5), dilation, border), size))


@pytest.mark.parametrize(("heads", "head_dim"), [(1, 1), (3, 1), (1, 8), (3, 8), (2, 24)])
def test_any_heads(heads: int, head_dim: int) -> None:
    _assert_equals_the_reference(make_problem(Geometry("sliding", (3, 3)), (9, 5), heads=heads, head_dim=head_dim))


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("part_bytes", [1, 400_000, 2_000_000], ids=["rows", "images", "heads"])
def test_parts_of_any_size_give_the_same(part_bytes: int, border: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(halo.PART_BYTES, "cpu", part_bytes)
    _assert_equals_the_reference(
        make_problem(Geometry("sliding", (5, 3), border=border), (17, 15), heads=3, head_dim=2)
    )


@pytest.mark.parametrize("num_blocks", [1, 3, 4, 12, 24, 100])
def test_parts_are_everything_once_within_the_budget(num_blocks: int) -> None:
    cut, seen = cut_map((20, 9), (3, 3)), torch.zeros(3, 2, 3)
    for part in cut_parts(cut, 3, 2, num_blocks):
        seen[part] += 1
        assert seen[part].numel() * cut.grid[1] <= max(num_blocks, cut.grid[1])
    assert (seen == 1).all()


def test_an_empty_batch_gives_empty_maps_and_no_gradient_of_tables() -> None:
    problem = make_problem(Geometry("sliding", (3, 3), (2, 1), "mask"), (9, 5), batch=0)
    out, *gradients = run_backend(halo, problem, make_grad(problem))
    assert out.shape == problem.v.shape
    for gradient, operand in zip(gradients, operands_of(problem), strict=True):
        assert gradient.shape == operand.shape
        assert (gradient == 0).all()


def _transposed(x: Tensor) -> Tensor:
    """The same numbers, stored in the reverse order of axes."""
    return x.permute(*reversed(range(x.ndim))).contiguous().permute(*reversed(range(x.ndim)))


def test_operands_in_any_layout_give_the_same() -> None:
    problem = make_problem(Geometry("sliding", (3, 5)), (9, 7))
    strange = change_operands(problem, [_transposed(x) for x in operands_of(problem)])
    grad = make_grad(problem)
    found = run_backend(halo, strange, _transposed(grad))
    for a, b in zip(found, run_backend(halo, problem, grad), strict=True):
        assert torch.equal(a, b)
        assert a.is_contiguous()


@pytest.mark.parametrize("wanted", [0, 1, 2, 3, 4, 5])
def test_one_operand_alone_may_need_a_gradient(wanted: int) -> None:
    problem = make_problem(Geometry("sliding", (3, 3)), (5, 4))
    leaf = operands_of(problem)[wanted].requires_grad_()
    out = fused.attend(problem, dropout_p=0.0, backend="torch")
    (gradient,) = torch.autograd.grad(out, [leaf], make_grad(problem))
    assert_close([gradient], [run_reference(problem, make_grad(problem))[wanted + 1]], 1e-12)


@pytest.mark.parametrize("border", BORDERS)
def test_gradients_are_those_of_finite_differences(border: str) -> None:
    problem = make_problem(Geometry("sliding", (3, 1), (1, 2), border), (4, 3), batch=1, head_dim=2)
    leaves = [x.requires_grad_() for x in operands_of(problem)]

    def call(*operands: Tensor) -> Tensor:
        return fused.attend(change_operands(problem, list(operands)), dropout_p=0.0, backend="torch")

    assert torch.autograd.gradcheck(call, leaves, fast_mode=True)


@pytest.mark.parametrize("dropout", [None, Dropout(0.3, 5)], ids=["all", "dropped"])
def test_runs_are_equal_to_the_last_bit(dropout: Dropout | None) -> None:
    problem = make_problem(Geometry("sliding", (7, 7)), (14, 9), dtype=torch.float32, dropout=dropout)
    first, second = (run_backend(halo, problem, make_grad(problem)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2.5e-3), (torch.float16, 4e-4)], ids=str)
@pytest.mark.parametrize("border", BORDERS)
def test_16_bit_operands_are_computed_with_in_float32(border: str, dtype: torch.dtype, bound: float) -> None:
    problem = make_problem(Geometry("sliding", (7, 7), border=border), (9, 12), head_dim=8, dtype=dtype)
    grad = make_grad(problem)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run_backend(halo, problem, grad)
    assert all(error <= bound for error in relative_errors(found, run_reference(problem, grad)))


def _weights_by_columns(problem: Problem) -> Tensor:
    """What each query (rows) makes of each pixel's value (columns); one head, one image."""
    num_pixels = problem.v.shape[1] * problem.v.shape[2]
    ones = torch.eye(num_pixels, dtype=problem.v.dtype).view(1, *problem.v.shape[1:3], 1, num_pixels)
    out, _ = halo.attention(problem._replace(v=ones))
    return out.view(num_pixels, num_pixels)


def test_dropped_weights_are_zero_and_kept_ones_scaled() -> None:
    dropped = make_problem(Geometry("sliding", (3, 3)), (9, 5), heads=1, batch=1, dropout=Dropout(0.25, 3))
    all_weights = _weights_by_columns(dropped._replace(dropout=None))
    weights = _weights_by_columns(dropped)
    kept = weights != 0
    assert torch.allclose(weights[kept], all_weights[kept] / 0.75)
    assert 0.6 < kept.sum() / (all_weights != 0).sum() < 0.9


def test_dropping_keeps_the_mean() -> None:
    problem = make_problem(Geometry("sliding", (3, 3)), (6, 5), heads=1, batch=1)
    runs = [halo.attention(problem._replace(dropout=Dropout(0.5, seed)))[0] for seed in range(600)]
    assert not torch.equal(runs[0], runs[1])
    deviation = torch.stack(runs).std(dim=0) / len(runs) ** 0.5
    assert ((torch.stack(runs).mean(dim=0) - halo.attention(problem)[0]).abs() < 5 * deviation).all()


@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)], ids=str)
@pytest.mark.parametrize("part_bytes", [1, 2**22], ids=["parts", "whole"])
def test_the_backward_pass_drops_what_the_forward_pass_dropped(
    part_bytes: int, dilation: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen by finite differences: with another mask they would not be the gradients."""
    monkeypatch.setitem(halo.PART_BYTES, "cpu", part_bytes)
    problem = make_problem(Geometry("sliding", (3, 3), dilation), (9, 3), head_dim=2, dropout=Dropout(0.4, 11))
    operands, grad = operands_of(problem), make_grad(problem)
    _, *gradients = run_backend(halo, problem, grad)
    for index, gradient in enumerate(gradients):
        step = 1e-6 * torch.randn(gradient.shape, dtype=gradient.dtype, generator=torch.Generator().manual_seed(index))
        ends = []
        for sign in (1, -1):
            moved = [x + sign * step if at == index else x for at, x in enumerate(operands)]
            ends.append((halo.attention(change_operands(problem, moved))[0] * grad).sum())
        assert float((ends[0] - ends[1]) / 2) == pytest.approx(float((gradient * step).sum()), rel=1e-6, abs=1e-12)


def test_where_blocks_would_be_waste_the_loop_over_offsets_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    problems = [
        make_problem(Geometry("sliding", (1, 1)), (9, 9)),
        make_problem(Geometry("sliding", (3, 3), dilation=(5, 4)), (20, 20)),
    ]
    for problem in problems:
        for a, b in zip(halo.attention(problem), offset.attention(problem), strict=True):
            assert torch.equal(a, b)
        grad = make_grad(problem)
        assert_close(run_backend(halo, problem, grad), run_reference(problem, grad), 1e-12)


def test_memory_stays_far_below_the_copies_of_an_unfolding() -> None:
    """Beyond the map's own few copies, a pass holds one part: here 4 MiB, where unfolded keys alone take 37."""
    problem = make_problem(Geometry("sliding", (7, 7)), (56, 56), batch=1, heads=3, head_dim=21, dtype=torch.float32)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.untyped_storage().nbytes())
            return result

    with Watch():
        run_backend(halo, problem, make_grad(problem))
    assert largest <= 2**22 * 1.25
