"""Cases of fused attention, and what the reference makes of them."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from paradigms.functional import Aggregation, Geometry, Outside, Terms
from paradigms.kernels import cpu, reference
from paradigms.kernels.problem import Dropout, FusedBackend, Operands, Problem, to_operands
from paradigms.normalization import Softmax

SCALE = 0.7
ALL_TERMS = "query_key+query_position+position_key+position_bias"


def make_problem(  # noqa: PLR0913 - everything that a problem is made of
    geometry: Geometry,
    size: tuple[int, int],
    *,
    terms: str = ALL_TERMS,
    heads: int = 2,
    head_dim: int = 5,
    batch: int = 2,
    dtype: torch.dtype = torch.float64,
    dropout: Dropout | None = None,
) -> Problem:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, wanted: bool = True) -> Tensor | None:
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
        return drawn if wanted else None

    present = terms.split("+")
    shape, table = (batch, *size, heads, head_dim), (heads, geometry.num_offsets)
    q = draw(*shape, wanted="query_key" in present or "query_position" in present)
    k = draw(*shape, wanted="query_key" in present or "position_key" in present)
    rk = draw(*table, head_dim, wanted="query_position" in present)
    rq = draw(*table, head_dim, wanted="position_key" in present)
    rb = draw(*table, wanted="position_bias" in present)
    v = draw(*shape)
    assert v is not None
    carries = geometry.border == "project"
    outside = Outside(draw(heads, head_dim, wanted=carries and k is not None), draw(heads, head_dim, wanted=carries))
    made = Terms(q, k, rk, rq, rb, SCALE if "query_key" in present else None)
    return Problem(made, v, geometry, outside, dropout)


def operands_of(problem: Problem) -> list[Tensor]:
    return [x for x in to_operands(problem) if x is not None]


def change_operands(problem: Problem, new: list[Tensor]) -> Problem:
    """By what stands in the order of `operands_of`."""
    left = iter(new)
    q, k, v, rk, rq, rb, *outside = (None if x is None else next(left) for x in to_operands(problem))
    assert v is not None
    return problem._replace(terms=problem.terms._replace(q=q, k=k, rk=rk, rq=rq, rb=rb), v=v, outside=Outside(*outside))


def run_reference(problem: Problem, grad: Tensor) -> list[Tensor]:
    """The output and every gradient, in float64."""
    leaves = [x.detach().double().requires_grad_() for x in operands_of(problem)]
    wide = change_operands(problem, leaves)
    out = reference.attend(wide.terms, wide.v, problem.geometry, Softmax(), Aggregation(), wide.outside, 0.0)
    # without q·k, or with the border `zero` on a map of one pixel, some operands say nothing
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.double(), materialize_grads=True)]


def run_backend(backend: FusedBackend, problem: Problem, grad: Tensor) -> list[Tensor]:
    """The same from a backend; in the operands' types."""
    out, normalizer = backend.attention(problem)
    gradients: Operands = backend.attention_backward(grad, normalizer, problem)
    found = [out, *(x for x in gradients if x is not None)]
    assert [x.dtype for x in found[1:]] == [x.dtype for x in operands_of(problem)]
    return found


def make_grad(problem: Problem) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(problem.v.shape, generator=generator, dtype=torch.float64).to(problem.v.dtype)


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    scale = max(1.0, *(float(x.abs().max()) for x in expected if x.numel()))
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        assert bool(((a.double() - e).abs() <= tolerance * scale).all())


def relative_errors(actual: list[Tensor], expected: list[Tensor]) -> list[float]:
    return [float((a.double() - e).norm() / e.norm()) for a, e in zip(actual, expected, strict=True)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each set that this machine has, the best one in the fast suite; not asked before the library is known."""
    if "each_instruction_set" in metafunc.fixturenames:
        names = cpu.list_instruction_sets()
        params = [pytest.param(name, marks=() if name == names[-1] else pytest.mark.slow) for name in names]
        metafunc.parametrize("each_instruction_set", params, indirect=True)


@pytest.fixture
def each_instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    """The test runs with one instruction set of the library."""
    with cpu.use_instruction_set(request.param):
        yield
