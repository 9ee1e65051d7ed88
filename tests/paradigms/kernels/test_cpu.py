"""The compiled kernels: every instruction set, any number of threads, 16 bits, dropout, and their absence."""

import ctypes
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from paradigms import kernels
from paradigms.config import TERMS, AttentionConfig
from paradigms.functional import Aggregation, Geometry, make_neighbors
from paradigms.kernels import cpu, fused, offset, reference, structures
from paradigms.kernels.problem import Dropout, Problem
from paradigms.normalization import Softmax

from ..conftest import make_input, make_operator
from .conftest import (
    assert_close,
    change_operands,
    make_grad,
    make_problem,
    operands_of,
    relative_errors,
    run_backend,
    run_reference,
)

needs_library = pytest.mark.skipif(not cpu.is_available(), reason="the library is not built")

GEOMETRIES = {
    "zero": Geometry("sliding", (3, 5)),
    "mask": Geometry("sliding", (5, 3), (1, 2), "mask"),
    "shift": Geometry("sliding", (3, 3), (2, 1), "shift"),
    "window": Geometry("window", (3, 4), border="project"),
    "shifted": Geometry("window", (4, 3), border="mask", shift=(1, 2)),
}
every_geometry = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
WIDTHS = {3: 1, 7: 8, 9: 24, 19: 32, 40: 5}
"""Of maps, below and above the lanes of a vector and its half; and of heads."""


@pytest.fixture(params=cpu.list_instruction_sets())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    with cpu.use_instruction_set(request.param):
        assert cpu.get_instruction_set() == request.param
        yield request.param


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["f64", "f32"])
@pytest.mark.parametrize(("width", "head_dim"), WIDTHS.items())
@every_geometry
@pytest.mark.usefixtures("instruction_set")
def test_every_instruction_set_equals_the_reference(
    geometry: Geometry, width: int, head_dim: int, dtype: torch.dtype, tolerance: float
) -> None:
    problem = make_problem(geometry, (5, width), head_dim=head_dim, dtype=dtype)
    assert_close(run_backend(cpu, problem, make_grad(problem)), run_reference(problem, make_grad(problem)), tolerance)


@pytest.mark.parametrize(
    ("name", "batch", "size"),
    [("zero", 40, (6, 8)), ("window", 40, (6, 8)), ("zero", 2, (70, 3)), ("mask", 2, (40, 20)), ("shift", 2, (40, 20))],
)
@pytest.mark.usefixtures("instruction_set")
def test_gradients_of_tables_are_sums_over_all_images_and_rows(name: str, batch: int, size: tuple[int, int]) -> None:
    """Many images, windows and rows: more than are added up at a time."""
    problem = make_problem(GEOMETRIES[name], size, batch=batch, heads=3, head_dim=24)
    assert_close(run_backend(cpu, problem, make_grad(problem)), run_reference(problem, make_grad(problem)), 1e-12)


@pytest.mark.usefixtures("instruction_set")
def test_taps_may_lie_a_whole_map_away() -> None:
    """More columns than a vector reads beyond a row; what lies outside is zero there too."""
    problem = make_problem(Geometry("sliding", (3, 5), (2, 40)), (5, 165), head_dim=8)
    assert_close(run_backend(cpu, problem, make_grad(problem)), run_reference(problem, make_grad(problem)), 1e-12)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.usefixtures("instruction_set")
def test_the_primitives_of_every_instruction_set_equal_those_of_torch(width: int) -> None:
    problem = make_problem(Geometry("sliding", (3, 5), (1, 2)), (5, width), head_dim=WIDTHS[width])
    a, b = problem.terms.q, problem.v
    taps = offset.dot(a, b, None, problem.geometry)
    generator = torch.Generator().manual_seed(5)
    filters = torch.randn(len(a), a.shape[3], taps.shape[-1], a.shape[4], dtype=a.dtype, generator=generator)
    for name, inputs in (
        ("dot", (a, b, None)),
        ("dot", (a, b, filters)),
        ("mix", (taps, b, None)),
        ("mix", (taps, b, filters)),
        ("correlate", (taps, a, b)),
        ("reverse", (taps,)),
    ):
        found, expected = (getattr(backend, name)(*inputs, problem.geometry) for backend in (cpu, offset))
        assert_close([found], [expected], 1e-13)


@pytest.mark.parametrize("dropout", [None, Dropout(0.3, 7)], ids=["all", "dropped"])
@every_geometry
@pytest.mark.usefixtures("instruction_set")
def test_runs_with_any_number_of_threads_are_equal_to_the_last_bit(geometry: Geometry, dropout: Dropout | None) -> None:
    problem = make_problem(geometry, (20, 22), heads=3, batch=3, head_dim=8, dtype=torch.float32, dropout=dropout)
    runs = []
    for number in (1, 1, 2, 2, 3):
        with _threads(number):
            runs.append(run_backend(cpu, problem, make_grad(problem)))
    assert all(torch.equal(a, b) for other in runs[1:] for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2.5e-3), (torch.float16, 4e-4)], ids=str)
@every_geometry
@needs_library
def test_16_bit_operands_are_computed_with_in_float32(geometry: Geometry, dtype: torch.dtype, bound: float) -> None:
    problem = make_problem(geometry, (8, 13), head_dim=8, dtype=dtype)
    grad = make_grad(problem)
    found = run_backend(cpu, problem, grad)
    assert all(x.dtype == dtype for x in found)
    assert all(error <= bound for error in relative_errors(found, run_reference(problem, grad)))


@every_geometry
@needs_library
def test_tables_may_have_another_type_than_maps(geometry: Geometry) -> None:
    """As under autocast; their gradients keep the numbers that 16 bits would round."""
    problem = make_problem(geometry, (8, 13), head_dim=8, dtype=torch.bfloat16)
    problem = change_operands(problem, [x if x.ndim == 5 else x.float() for x in operands_of(problem)])
    out, *gradients = run_backend(cpu, problem, make_grad(problem))
    expected = run_reference(problem, make_grad(problem))
    assert out.dtype == torch.bfloat16
    for error, x in zip(relative_errors([out, *gradients], expected), [out, *gradients], strict=True):
        assert error <= (2.5e-3 if x.dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize("neighborhood", ["local_window", "sliding_window"])
@needs_library
def test_autocast_trains_float32_parameters_through_16_bit_maps(neighborhood: str) -> None:
    config = AttentionConfig(parameterization=TERMS, neighborhood=neighborhood, window_size=4, kernel_size=3)
    operator = make_operator(config).float()
    operator.backend = "cpu"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = operator(make_input().float())
    out.float().square().sum().backward()
    assert out.dtype == torch.bfloat16
    assert all(x.grad is not None and x.grad.dtype == torch.float32 for x in operator.parameters())
    expected = make_operator(config)(make_input())
    assert relative_errors([out.detach()], [expected.detach()])[0] < 2e-2


TINY = {
    "zero": Geometry("sliding", (3, 3), (2, 1)),
    "mask": Geometry("sliding", (3, 3), (1, 2), "mask"),
    "shift": Geometry("sliding", (3, 1), (1, 1), "shift"),
    "window": Geometry("window", (2, 2), border="project"),
    "shifted": Geometry("window", (3, 2), border="project", shift=(1, 1)),
    "shifted-mask": Geometry("window", (3, 2), border="mask", shift=(2, 1)),
}


@pytest.mark.parametrize("geometry", TINY.values(), ids=TINY.keys())
@needs_library
def test_gradients_are_those_of_finite_differences(geometry: Geometry) -> None:
    problem = make_problem(geometry, (4, 3), batch=1, heads=1, head_dim=2)
    leaves = [x.requires_grad_() for x in operands_of(problem)]

    def call(*operands: Tensor) -> Tensor:
        return fused.attend(change_operands(problem, list(operands)), dropout_p=0.0, backend="cpu")

    assert torch.autograd.gradcheck(call, leaves)


class _Dropped(Softmax):
    """Softmax, then weights times given factors (batch, heads, queries, taps)."""

    def __init__(self, factors: Tensor) -> None:
        self.factors = factors

    def __call__(self, logits: Tensor, valid: Tensor | None) -> Tensor:
        return super().__call__(logits, valid) * self.factors


def _read_factors(problem: Problem) -> Tensor:
    """What every weight is multiplied by, (batch, heads, queries, taps), from values that name their pixel."""
    batch, height, width, heads, _ = problem.v.shape
    pixels = height * width
    names = torch.eye(pixels, dtype=problem.v.dtype).view(1, height, width, 1, pixels).expand(batch, -1, -1, heads, -1)
    q, k = (pad(x, (0, pixels - x.shape[-1])) for x in (problem.terms.q, problem.terms.k))
    rk, rq = (pad(x, (0, pixels - x.shape[-1])) for x in (problem.terms.rk, problem.terms.rq))
    named = problem._replace(terms=problem.terms._replace(q=q, k=k, rk=rk, rq=rq), v=names)
    ratio = cpu.attention(named)[0] / cpu.attention(named._replace(dropout=None))[0]
    index = make_neighbors(problem.geometry, height, width).index
    by_pixel = pad(ratio.flatten(1, 2).permute(0, 2, 1, 3), (0, 1))  # outside the map values are zero: any factor
    return by_pixel.gather(-1, index.expand(batch, heads, -1, -1)).nan_to_num(0.0)


DROPPING = {name: geometry for name, geometry in GEOMETRIES.items() if geometry.border != "project"}
every_dropping_geometry = pytest.mark.parametrize("geometry", DROPPING.values(), ids=DROPPING.keys())


@every_dropping_geometry
@pytest.mark.usefixtures("instruction_set")
def test_the_backward_pass_drops_what_the_forward_pass_dropped(geometry: Geometry) -> None:
    problem = make_problem(geometry, (6, 7), batch=3, dropout=Dropout(0.4, 2**61 + 5))
    factors, grad = _read_factors(problem), make_grad(problem)
    leaves = [x.detach().requires_grad_() for x in operands_of(problem)]
    terms, v, *_, outside, _ = change_operands(problem, leaves)
    out = reference.attend(terms, v, geometry, _Dropped(factors), Aggregation(), outside, 0.0)
    expected = [out.detach(), *torch.autograd.grad(out, leaves, grad, materialize_grads=True)]
    assert_close(run_backend(cpu, problem, grad), expected, 1e-12)


@every_dropping_geometry
@needs_library
def test_weights_are_dropped_with_their_probability_each_on_its_own(geometry: Geometry) -> None:
    problem = make_problem(geometry, (12, 9), batch=3, dropout=Dropout(0.25, 5))
    index, valid, _ = make_neighbors(geometry, 12, 9)
    shown = _read_factors(problem)[..., valid & (index < 12 * 9)]
    dropped = (shown == 0).double()
    torch.testing.assert_close(shown, torch.where(shown == 0, 0, 1 / 0.75).to(shown.dtype))
    num_weights = dropped.numel()
    assert abs(float(dropped.mean()) - 0.25) < 4 * (0.25 * 0.75 / num_weights) ** 0.5
    planes = dropped.flatten(0, 1)
    together = (planes @ planes.T / planes.shape[1] - 0.25**2)[~torch.eye(len(planes), dtype=torch.bool)]
    assert float(together.abs().max()) < 5 * 0.25 * 0.75 / planes.shape[1] ** 0.5
    other = _read_factors(problem._replace(dropout=Dropout(0.25, 6)))[..., valid & (index < 12 * 9)] == 0
    assert abs(float((dropped * other).mean()) - 0.25**2) < 5 * 0.25 * 0.75 / num_weights**0.5


@every_geometry
@needs_library
def test_dropping_keeps_the_mean(geometry: Geometry) -> None:
    problem = make_problem(geometry, (5, 4))
    runs = torch.stack([cpu.attention(problem._replace(dropout=Dropout(0.5, seed)))[0] for seed in range(500)])
    deviation = runs.std(dim=0) / len(runs) ** 0.5
    assert ((runs.mean(dim=0) - cpu.attention(problem)[0]).abs() <= 5 * deviation + 1e-12).all()


@every_geometry
@needs_library
def test_what_is_dropped_does_not_depend_on_the_instruction_set(geometry: Geometry) -> None:
    problem = make_problem(geometry, (6, 19), dropout=Dropout(0.5, 3))
    outputs = []
    for name in cpu.list_instruction_sets():
        for dtype in (torch.float64, torch.float32):
            with cpu.use_instruction_set(name):
                outputs.append(cpu.attention(change_operands(problem, [x.to(dtype) for x in operands_of(problem)]))[0])
    assert_close(outputs, outputs[:1] * len(outputs), 1e-5)


@every_geometry
@needs_library
def test_torchs_seed_decides_what_is_dropped(geometry: Geometry) -> None:
    problem, outputs = make_problem(geometry, (5, 4)), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(fused.attend(problem, dropout_p=0.5, backend="cpu"))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    state = torch.get_rng_state()
    assert torch.equal(fused.attend(problem, dropout_p=0.0, backend="cpu"), cpu.attention(problem)[0])
    assert torch.equal(torch.get_rng_state(), state)


@every_geometry
@needs_library
def test_dropping_everything_leaves_zeros(geometry: Geometry) -> None:
    problem = make_problem(geometry, (5, 4), dropout=Dropout(1.0, 1))
    assert not any(x.any() for x in run_backend(cpu, problem, make_grad(problem)))


@pytest.fixture
def _missing_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    caches = cpu._load, cpu.list_instruction_sets
    monkeypatch.setattr(cpu, "LIBRARY", tmp_path / "_native.so")
    for cached in caches:
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()


@pytest.mark.usefixtures("_missing_library")
def test_without_the_library_one_line_says_so_and_torch_takes_over(caplog: pytest.LogCaptureFixture) -> None:
    operator, x = make_operator(AttentionConfig(neighborhood="sliding_window", kernel_size=3)), make_input()
    with caplog.at_level(logging.DEBUG, logger="paradigms"):
        outputs = [operator(x), operator(x)]
    assert ["no compiled kernels" in line for line in caplog.messages] == [True]
    assert cpu.list_instruction_sets() == ()
    operator.backend = "torch"
    assert torch.equal(operator(x), outputs[0])
    for kind in ("window", "sliding"):
        query = Geometry(kind, (3, 3)), Softmax()
        assert kernels.choose_kernel(*query, device=x.device).backend == "torch"
        with pytest.raises(ValueError, match="backend 'cpu' does not run on cpu here; use 'auto'"):
            kernels.choose_kernel(*query, backend="cpu", device=x.device)
    with pytest.raises(ValueError, match="the instruction sets are none, got 'avx2'"), cpu.use_instruction_set("avx2"):
        pass


@needs_library
def test_a_library_older_than_its_sources_is_not_called(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cpu._load.cache_clear()
    with monkeypatch.context() as patch, caplog.at_level(logging.DEBUG, logger="paradigms"):
        patch.setattr(cpu, "digest_sources", lambda: "0" * 16)
        assert not cpu.is_available()
    cpu._load.cache_clear()
    assert ["older than its sources" in line for line in caplog.messages] == [True]


@needs_library
def test_structures_are_laid_out_as_the_compiler_has_them() -> None:
    library = cpu._load()
    assert library is not None
    places = structures.list_places(library)
    assert places == structures.list_mirrored_places()
    assert places["Map"] == (0, sum(size for name, (_, size) in places.items() if name.startswith("Map.")))


class WindowCase(ctypes.Structure):
    """The first field has half its size, which the alignment of the second makes up for."""

    _fields_ = (("batch", ctypes.c_int32), *structures.WindowCase._fields_[1:])


@needs_library
def test_a_library_whose_structures_are_laid_out_differently_is_not_called(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cpu._load.cache_clear()
    with monkeypatch.context() as patch, caplog.at_level(logging.DEBUG, logger="paradigms"):
        patch.setattr(structures, "MIRRORS", (*structures.MIRRORS[:2], WindowCase))
        assert not cpu.is_available()
    cpu._load.cache_clear()
    assert ["lays out WindowCase.batch differently" in line for line in caplog.messages] == [True]


@needs_library
def test_an_unknown_instruction_set_is_refused_with_the_known_ones() -> None:
    before, known = cpu.get_instruction_set(), ", ".join(cpu.list_instruction_sets())
    with (
        pytest.raises(ValueError, match=f"the instruction sets are {known}, got 'sse9'"),
        cpu.use_instruction_set("sse9"),
    ):
        pass
    with pytest.raises(RuntimeError, match="in use"), cpu.use_instruction_set(cpu.list_instruction_sets()[0]):
        raise RuntimeError("in use")
    assert cpu.get_instruction_set() == before
