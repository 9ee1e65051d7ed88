"""The primitives as operators of torch: what they compute, that they are registered, and what they keep."""

import math
from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from paradigms.functional import Geometry
from paradigms.kernels import cpu, primitive

BACKENDS = ["torch", pytest.param("cpu", marks=pytest.mark.skipif(not cpu.is_available(), reason="not built"))]
GEOMETRIES = {
    "square": (Geometry("sliding", (3, 3)), (4, 5)),
    "dilated": (Geometry("sliding", (3, 5), (2, 1)), (5, 4)),
    "one-tap": (Geometry("sliding", (1, 1)), (2, 3)),
    "one-pixel": (Geometry("sliding", (3, 5)), (1, 1)),
    "low": (Geometry("sliding", (5, 5), (1, 2)), (2, 18)),
}
every_geometry = pytest.mark.parametrize(("geometry", "size"), GEOMETRIES.values(), ids=GEOMETRIES.keys())
every_backend = pytest.mark.parametrize("backend", BACKENDS)
NAMES = ["dot", "mix", "filtered_dot", "filtered_mix", "correlate", "reverse"]

Loop = Callable[..., Tensor]


def _make_inputs(
    name: str, geometry: Geometry, size: tuple[int, int], dtype: torch.dtype = torch.float64, batch: int = 2
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn(2, batch, *size, 2, 3, dtype=torch.float64, generator=generator).to(dtype)
    taps = torch.randn(batch, *size, 2, geometry.num_taps, dtype=torch.float64, generator=generator).to(dtype)
    filters = torch.randn(batch, 2, geometry.num_taps, 3, dtype=torch.float64, generator=generator).to(dtype)
    return {
        "dot": [a, b],
        "mix": [taps, b],
        "filtered_dot": [a, b, filters],
        "filtered_mix": [taps, b, filters],
        "correlate": [taps, a, b],
        "reverse": [taps],
    }[name]


def _call(name: str, geometry: Geometry, backend: str) -> Loop:
    function = getattr(primitive, name.removeprefix("filtered_"))
    if name.startswith("filtered_"):
        return lambda left, right, filters: function(left, right, geometry, filters=filters, backend=backend)
    return partial(function, geometry=geometry, backend=backend)


def _loop(name: str, inputs: list[Tensor], geometry: Geometry) -> Tensor:
    """By definition, pixel by pixel and tap by tap."""
    first, seen_of = inputs[0], inputs[-1] if name in ("correlate", "reverse") else inputs[1]
    filters = inputs[2] if name.startswith("filtered_") else None
    (rows, columns), (down, across) = geometry.kernel_size, geometry.dilation
    height, width = first.shape[1:3]
    taps = first.new_zeros(*first.shape[:-1], geometry.num_taps)
    mixed = torch.zeros_like(seen_of)
    sums = first.new_zeros(len(first), first.shape[3], geometry.num_taps, seen_of.shape[-1])
    for y, x, s, t in product(range(height), range(width), range(rows), range(columns)):
        there, tap = (y + (s - rows // 2) * down, x + (t - columns // 2) * across), s * columns + t
        if not (0 <= there[0] < height and 0 <= there[1] < width):
            continue
        seen = seen_of[:, there[0], there[1]]
        if filters is not None:
            seen = seen * filters[:, :, tap]
        if name.endswith("dot"):
            taps[:, y, x, :, tap] = (first[:, y, x] * seen).sum(-1)
        if name.endswith("mix"):
            mixed[:, y, x] += first[:, y, x, :, tap, None] * seen
        if name == "correlate":
            sums[:, :, tap] += first[:, y, x, :, tap, None] * inputs[1][:, y, x] * seen
        if name == "reverse":
            opposite = (rows - 1 - s) * columns + columns - 1 - t
            taps[:, y, x, :, tap] = seen[..., opposite]
    if name.endswith("mix"):
        return mixed
    return sums if name == "correlate" else taps


def _assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert bool(((actual - expected).abs() <= 1e-13 * max(1.0, float(expected.abs().max()))).all())


@every_geometry
@every_backend
@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_its_definition_says(name: str, backend: str, geometry: Geometry, size: tuple[int, int]) -> None:
    inputs = _make_inputs(name, geometry, size)
    _assert_close(_call(name, geometry, backend)(*inputs), _loop(name, inputs, geometry))


@every_backend
@pytest.mark.parametrize("name", NAMES)
def test_inputs_in_any_layout_give_the_same(name: str, backend: str) -> None:
    geometry, size = GEOMETRIES["dilated"]
    inputs, call = _make_inputs(name, geometry, size), _call(name, geometry, backend)
    strange = [x.permute(*reversed(range(x.ndim))).contiguous().permute(*reversed(range(x.ndim))) for x in inputs]
    found, expected = call(*strange), call(*inputs)
    assert torch.equal(found, expected)
    assert found.is_contiguous()
    shared = [x[:1, :, :1].expand_as(x) for x in inputs]
    assert torch.equal(call(*shared), call(*(x.contiguous() for x in shared)))


@every_backend
@pytest.mark.parametrize("name", NAMES)
def test_an_empty_batch_gives_an_empty_result(name: str, backend: str) -> None:
    geometry, size = GEOMETRIES["square"]
    inputs = [x.requires_grad_() for x in _make_inputs(name, geometry, size, batch=0)]
    out = _call(name, geometry, backend)(*inputs)
    assert out.shape == _loop(name, inputs, geometry).shape
    gradients = torch.autograd.grad(out.sum(), inputs)
    assert [x.shape for x in gradients] == [x.shape for x in inputs]


@every_backend
@pytest.mark.parametrize("name", NAMES)
def test_the_operator_is_registered_as_it_behaves(name: str, backend: str) -> None:
    geometry, size = GEOMETRIES["dilated"]
    inputs = [x.requires_grad_() for x in _make_inputs(name, geometry, size)]
    operator = getattr(torch.ops.paradigms, name.removeprefix("filtered_")).default
    no_filters = [None] if name in ("dot", "mix") else []
    torch.library.opcheck(operator, (*inputs, *no_filters, geometry.kernel_size, geometry.dilation, backend))


@pytest.mark.parametrize("geometry", [GEOMETRIES["square"][0], GEOMETRIES["dilated"][0]], ids=["square", "dilated"])
@every_backend
@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_differentiated_twice(name: str, backend: str, geometry: Geometry) -> None:
    inputs = [x.requires_grad_() for x in _make_inputs(name, geometry, (3, 4), batch=1)]
    call = _call(name, geometry, backend)
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


@every_backend
@pytest.mark.parametrize(
    ("name", "products"),
    [("dot", 1), ("mix", 1), ("filtered_dot", 2), ("filtered_mix", 2), ("correlate", 2), ("reverse", 0)],
)
def test_a_product_is_counted_for_each_tap_forward_and_for_each_gradient(
    name: str, products: int, backend: str
) -> None:
    geometry, size = GEOMETRIES["dilated"]
    inputs = [x.requires_grad_() for x in _make_inputs(name, geometry, size)]
    flops = 2 * products * math.prod(size) * 2 * 2 * 3 * geometry.num_taps
    with FlopCounterMode(display=False) as forward:
        out = _call(name, geometry, backend)(*inputs)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert (forward.get_total_flops(), backward.get_total_flops()) == (flops, len(inputs) * flops)


@every_backend
@pytest.mark.parametrize("name", NAMES)
def test_only_the_inputs_that_a_gradient_needs_are_kept(name: str, backend: str) -> None:
    geometry, size = GEOMETRIES["dilated"]
    inputs, kept = _make_inputs(name, geometry, size), []
    inputs[0].requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.data_ptr()) or x, lambda x: x):
        _call(name, geometry, backend)(*inputs)
    assert kept == [x.data_ptr() for x in inputs[1:]]


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2.5e-3), (torch.float16, 4e-4)], ids=str)
@every_backend
@pytest.mark.parametrize("name", NAMES)
def test_16_bit_inputs_are_computed_with_in_float32(name: str, backend: str, dtype: torch.dtype, bound: float) -> None:
    geometry, call = Geometry("sliding", (7, 7)), _call(name, Geometry("sliding", (7, 7)), backend)
    inputs = [x.requires_grad_() for x in _make_inputs(name, geometry, (9, 12), dtype)]
    wide = [x.detach().double().requires_grad_() for x in inputs]
    out, expected = call(*inputs), call(*wide)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(4)).to(dtype)
    found = [out.detach(), *torch.autograd.grad(out, inputs, grad)]
    exact = [expected.detach(), *torch.autograd.grad(expected, wide, grad.double())]
    for a, e in zip(found, exact, strict=True):
        assert a.dtype == dtype
        assert float((a.double() - e).norm()) <= bound * float(e.norm())


@every_backend
@pytest.mark.parametrize("name", NAMES)
def test_runs_are_equal_to_the_last_bit(name: str, backend: str) -> None:
    geometry = Geometry("sliding", (5, 5))
    results = []
    for _ in range(2):
        inputs = [x.requires_grad_() for x in _make_inputs(name, geometry, (9, 12), torch.float32)]
        out = _call(name, geometry, backend)(*inputs)
        results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
