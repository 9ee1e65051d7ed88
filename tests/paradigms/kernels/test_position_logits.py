"""Logits of position terms as one compiled operator: strict Hadamard attention under the border `shift`."""

import pytest
import torch
from torch import Tensor

from paradigms.functional import Geometry, Terms, gather_taps, make_logits, make_neighbors
from paradigms.kernels import cpu, fused
from paradigms.kernels.position_logits import are_position_terms

pytestmark = pytest.mark.skipif(not cpu.is_available(), reason="the library is not built")

HEADS, CHANNELS = 3, 11
GEOMETRIES = [
    Geometry("sliding", (3, 5), border="shift"),
    Geometry("sliding", (7, 7), border="shift"),
    Geometry("sliding", (3, 3), (2, 3), "shift"),
    Geometry("sliding", (5, 1), border="shift"),
    Geometry("sliding", (1, 1), border="shift"),
]
SIZES = [(9, 8), (1, 9), (2, 20), (17, 5), (12, 37)]
"""Some are smaller than the kernel along one axis, some wider than two vectors."""
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def draw_operands(geometry: Geometry, size: tuple[int, int], dtype: torch.dtype, batch: int = 2) -> list[Tensor]:
    """Queries, keys and tables."""
    generator = torch.Generator().manual_seed(0)
    maps, table = (batch, *size, 1, CHANNELS), (HEADS, geometry.num_offsets, CHANNELS)
    shapes = maps, maps, table, table, table[:2]
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def gather_logits(operands: list[Tensor], geometry: Geometry) -> Tensor:
    """By the reference."""
    size = operands[0].shape[1:3]
    index, _, offset = make_neighbors(geometry, *size)
    logits = make_logits(Terms(*operands, None), gather_taps(operands[1], None, index), offset)
    return logits.transpose(1, 2).unflatten(1, size)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.usefixtures("each_instruction_set")
def test_logits_and_gradients_equal_the_reference(geometry: Geometry, dtype: torch.dtype) -> None:
    for size in SIZES:
        operands = draw_operands(geometry, size, dtype)
        wide = [x.detach().double().requires_grad_() for x in operands]
        made = torch.ops.paradigms.position_logits(*operands, fused.write_geometry(geometry))
        expected = gather_logits(wide, geometry)
        valid = make_neighbors(geometry, *size).valid.view(*size, 1, -1)
        grad = torch.randn(made.shape, generator=torch.Generator().manual_seed(1)).to(dtype) * valid
        pairs = [(made * valid, expected * valid)]
        pairs += zip(
            torch.autograd.grad(made, operands, grad),
            torch.autograd.grad(expected, wide, grad.double()),
            strict=True,
        )
        for actual, reference in pairs:
            assert actual.dtype == dtype
            scale = max(1.0, float(reference.detach().abs().max()))
            assert float((actual - reference).detach().abs().max()) <= TOLERANCES[dtype] * scale


@pytest.mark.parametrize("geometry", [GEOMETRIES[0], GEOMETRIES[2]], ids=str)
def test_they_can_be_differentiated_twice(geometry: Geometry) -> None:
    operands, how = draw_operands(geometry, (6, 7), torch.float64), fused.write_geometry(geometry)

    def call(*given: Tensor) -> Tensor:
        return torch.ops.paradigms.position_logits(*given, how)  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(call, operands, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, operands, fast_mode=True)
    grad = torch.randn_like(call(*operands))
    for operator, given in (("position_logits", operands), ("position_logits_backward", [grad, *operands])):
        checked = getattr(torch.ops.paradigms, operator).default
        torch.library.opcheck(checked, (*given, how), test_utils=("test_schema", "test_faketensor"))


def test_no_bit_depends_on_the_number_of_threads() -> None:
    geometry = GEOMETRIES[1]
    operands, runs = draw_operands(geometry, (9, 20), torch.float32), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            made = torch.ops.paradigms.position_logits(*operands, fused.write_geometry(geometry))
            runs.append([made, *torch.autograd.grad(made.square().sum(), operands)])
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *runs))


def test_an_empty_batch_has_gradients_of_zero() -> None:
    geometry = GEOMETRIES[0]
    operands = draw_operands(geometry, (4, 6), torch.float32, batch=0)
    made = torch.ops.paradigms.position_logits(*operands, fused.write_geometry(geometry))
    assert made.shape == (0, 4, 6, HEADS, geometry.num_taps)
    assert not any(x.any() for x in torch.autograd.grad(made.sum(), operands))


def test_maps_with_heads_and_sums_of_other_terms_take_another_path() -> None:
    q, k, rk, rq, rb = draw_operands(GEOMETRIES[0], (9, 8), torch.float32)
    assert are_position_terms(Terms(q, k, rk, rq, rb, None))
    assert not are_position_terms(Terms(q, k, rk, rq, rb, 1.0))
    assert not are_position_terms(Terms(q, k, rk, rq, None, None))
    wide = q.expand(-1, -1, -1, HEADS, -1)
    assert not are_position_terms(Terms(wide, wide, rk, rq, rb, None))
