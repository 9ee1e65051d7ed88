"""Every backend, through the seam: equal to explicit loops on tiny maps, to the reference elsewhere.

Cases are a covering design: every two levels of every two dimensions meet in one of them, not all with all. That fast
paths equal the loops too is slow: they equal the reference, which does.
"""

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import combinations, product
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from paradigms import kernels
from paradigms.config import BACKENDS, TERMS
from paradigms.facts import NEIGHBORHOODS
from paradigms.functional import Aggregation, Geometry, Outside
from paradigms.kernels.problem import Problem, to_operands
from paradigms.normalization import NORMALIZATIONS

from .conftest import ALL_TERMS, make_grad, make_problem

Size = tuple[int, int]
Found = dict[str, Tensor]

ELSEWHERE = ("auto", "reference", "triton")
"""Not fast paths, or with a suite of their own."""

SUBSETS = ["+".join(some) for n in range(len(TERMS), 0, -1) for some in combinations(TERMS, n)]
ROUTES = [
    *product(["window", "shifted"], NEIGHBORHOODS["local_window"].borders, NORMALIZATIONS),
    *product(["sliding"], ["zero", "mask", "project"], NORMALIZATIONS),
    ("sliding", "shift", "softmax"),
]
"""What decides which kernels support a problem; `shifted` are windows moved by half of their size."""


class Point(NamedTuple):
    """One point of the grid."""

    route: tuple[str, str, str]
    terms: str
    kernel_size: Size
    size: Size
    dilation: Size = (1, 1)
    head_dim: int = 2
    heads: int = 2
    dtype: torch.dtype = torch.float64
    layout: str = "contiguous"

    def __str__(self) -> str:
        terms = "".join(f"-{term.partition('_')[0][0]}{term.partition('_')[2][0]}" for term in self.terms.split("+"))
        sizes = (f"{name}{rows}x{columns}" for name, (rows, columns) in zip("khd", self[2:5], strict=True))
        dtype = str(self.dtype).removeprefix("torch.")
        route = "-".join(self.route)
        return f"{route}{terms}-{'-'.join(sizes)}-{self.heads}x{self.head_dim}-{dtype}-{self.layout}"


def _cover_pairs(*factors: Sequence[Any], impossible: set[frozenset[tuple[int, Any]]]) -> list[Point]:
    """Greedily, few points in which every two possible levels of every two factors meet."""
    factors_of = [[(at, level) for level in levels] for at, levels in enumerate(factors)]
    pairs = (frozenset(pair) for a, b in combinations(factors_of, 2) for pair in product(a, b))
    missing = dict.fromkeys(pair for pair in pairs if pair not in impossible)
    points = []
    while missing:
        chosen = dict(next(iter(missing)))
        for at, choices in enumerate(factors_of):
            if at not in chosen:
                met = {choice: [frozenset((choice, other)) for other in chosen.items()] for choice in choices}
                possible = {choice: new for choice, new in met.items() if impossible.isdisjoint(new)}
                best = max(possible, key=lambda choice: sum(pair in missing for pair in met[choice]))
                chosen[at] = best[1]
        for pair in combinations(chosen.items(), 2):
            missing.pop(frozenset(pair), None)
        points.append(Point(*(level for _, level in sorted(chosen.items()))))
    return points


def _without_spread(kernel_sizes: list[Size], sizes: list[Size]) -> set[frozenset[tuple[int, Any]]]:
    """Filter norm on a single tap, which it refuses."""
    routes = [(0, route) for route in ROUTES if route[2] == "filter_norm"]
    alone = [(2, k) for k in kernel_sizes if k == (1, 1)] + [(3, s) for s in sizes if s == (1, 1)]
    return {frozenset(pair) for pair in product(routes, alone)}


KERNEL_SIZES: list[Size] = [(3, 3), (1, 1), (5, 5), (7, 7), (3, 5)]
SIZES: list[Size] = [(9, 5), (1, 1), (1, 9), (3, 12), (14, 7), (7, 7), (8, 8), (17, 40), (3, 18)]
GRID = _cover_pairs(
    ROUTES,
    SUBSETS,
    KERNEL_SIZES,
    SIZES,
    [(1, 1), (2, 2), (1, 2)],
    [5, 1, 8, 24, 32],
    [3, 1],
    [torch.float64, torch.float32],
    ["contiguous", "channels-first", "transposed", "packed", "expanded"],
    impossible=_without_spread(KERNEL_SIZES, SIZES),
)

TINY_KERNEL_SIZES: list[Size] = [(3, 3), (1, 1), (3, 5), (5, 1)]
TINY_SIZES: list[Size] = [(4, 5), (1, 1), (1, 4), (6, 3)]
TINY = _cover_pairs(
    ROUTES,
    [ALL_TERMS, *TERMS],
    TINY_KERNEL_SIZES,
    TINY_SIZES,
    [(1, 1), (2, 2), (2, 1)],
    impossible=_without_spread(TINY_KERNEL_SIZES, TINY_SIZES),
)


def _make(point: Point) -> Problem:
    problem = make_problem(
        _make_geometry(point),
        point.size,
        terms=point.terms,
        heads=point.heads,
        head_dim=point.head_dim,
        dtype=point.dtype,
    )
    if point.layout == "expanded":
        problem = _replace(
            problem, {name: _same_for_all(x) if x.ndim == 5 else x for name, x in _operands(problem).items()}
        )
    return problem


def _make_geometry(point: Point) -> Geometry:
    kind, border, _ = point.route
    shift = (point.kernel_size[0] // 2, point.kernel_size[1] // 2) if kind == "shifted" else (0, 0)
    dilation = point.dilation if kind == "sliding" else (1, 1)
    return Geometry("sliding" if kind == "sliding" else "window", point.kernel_size, dilation, border, shift)


def _operands(problem: Problem) -> Found:
    return {name: x for name, x in to_operands(problem)._asdict().items() if x is not None}


def _replace(problem: Problem, operands: Found) -> Problem:
    terms = {name: x for name, x in operands.items() if name in ("q", "k", "rk", "rq", "rb")}
    outside = Outside(operands.get("outside_k"), operands.get("outside_v"))
    return problem._replace(terms=problem.terms._replace(**terms), v=operands["v"], outside=outside)


def _same_for_all(x: Tensor) -> Tensor:
    """One image's numbers for the whole batch, one row's for all rows; stored once."""
    return x[:1, :1].expand_as(x)


def _lay_out(x: Tensor, layout: str) -> Tensor:
    """The same numbers stored otherwise."""
    if layout in ("contiguous", "expanded"):
        return x
    if layout == "packed":  # as when one projection makes queries, keys and values
        wide = x.new_zeros(*x.shape[:-1], 3 * x.shape[-1])
        wide[..., x.shape[-1] : 2 * x.shape[-1]] = x
        return wide[..., x.shape[-1] : 2 * x.shape[-1]]
    order = (0, 3, 4, 1, 2) if layout == "channels-first" and x.ndim == 5 else tuple(reversed(range(x.ndim)))
    return x.permute(order).contiguous().permute(tuple(order.index(axis) for axis in range(x.ndim)))


def _run(problem: Problem, normalization: str, backend: str, *, layout: str = "contiguous", wanted: str = "") -> Found:
    """The output and the gradients of what is wanted (all operands), by their names."""
    operands = {name: _lay_out(x, layout).detach() for name, x in _operands(problem).items()}
    asked = {name: x.requires_grad_() for name, x in operands.items() if not wanted or name in wanted.split()}
    terms, v, geometry, outside, _ = _replace(problem, operands)
    norm = NORMALIZATIONS[normalization]()
    out = kernels.attend(terms, v, geometry, norm, Aggregation(), outside=outside, backend=backend)
    assert out.dtype == v.dtype
    return {"out": out.detach(), **_differentiate(out, asked, _make_grad_of(problem, layout))}


def _make_grad_of(problem: Problem, layout: str) -> Tensor:
    grad = make_grad(problem)
    return _same_for_all(grad) if layout == "expanded" else _lay_out(grad, layout)


def _differentiate(out: Tensor, asked: Found, grad: Tensor) -> Found:
    if not out.requires_grad:  # nothing that is wanted says anything
        return {name: torch.zeros_like(x) for name, x in asked.items()}
    found = torch.autograd.grad(out, list(asked.values()), grad.to(out.dtype), materialize_grads=True)
    return dict(zip(asked, found, strict=True))


def _assert_equal(actual: Found, expected: Found, dtype: torch.dtype) -> None:
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert actual.keys() == expected.keys()
    for name, e in expected.items():
        assert actual[name].shape == e.shape, name
        error, scale = (actual[name] - e).abs(), max(1.0, float(e.abs().max()) if e.numel() else 0.0)
        assert bool((error <= tolerance * scale).all()), f"{name}: {float(error.max()):.2g} of {scale:.2g}"


def _with_backends(points: Sequence[Point], *others: str) -> list[Any]:
    """Each with every fast path that supports it here."""
    found = []
    for point in points:
        query = point.route[2], _make_geometry(point)
        backends = (name for name in BACKENDS if name not in ELSEWHERE and _supports(name, *query))
        found += [pytest.param(point, name, id=f"{name}-{point}") for name in (*others, *backends)]
    return found


@cache
def _supports(backend: str, normalization: str, geometry: Geometry) -> bool:
    norm = NORMALIZATIONS[normalization]()
    try:
        kernels.choose_kernel(geometry, norm, backend=backend, device=torch.device("cpu"))
    except ValueError:
        return False
    return True


class Tap(NamedTuple):
    """One key that a query sees, as the loops below find it."""

    pixel: Size | None  # None outside the map
    row: int  # of a position table
    counted: bool


def _loop_over_an_axis(at: int, length: int, dim: int, geometry: Geometry) -> list[tuple[int | None, int, bool]]:
    """Position (None outside), offset and whether a tap is connected, for the query at `at`."""
    size, step = geometry.kernel_size[dim], geometry.dilation[dim]
    if geometry.kind == "window":
        return _loop_over_a_window(at, length, size, geometry.shift[dim] % length)
    if geometry.border == "shift":
        phase = list(range(at % step, length, step))
        rank = phase.index(at)
        start = min(max(rank - size // 2, 0), max(len(phase) - size, 0))
        return [(phase[r], r - rank + size - 1, True) for r in range(start, min(start + size, len(phase)))]
    positions = [at + step * (tap - size // 2) for tap in range(size)]
    return [(p if 0 <= p < length else None, tap, True) for tap, p in enumerate(positions)]


def _loop_over_a_window(at: int, length: int, size: int, shift: int) -> list[tuple[int | None, int, bool]]:
    """The axis rolled, filled up and cut; three regions do not see each other where it was rolled, as in Swin."""
    padded = math.ceil(length / size) * size
    rolled = [(place + shift) % length if place < length else None for place in range(padded)]
    regions = [0 if not shift else (place >= padded - size) + (place >= padded - shift) for place in range(padded)]
    own = rolled.index(at)
    places = range(own // size * size, own // size * size + size)
    return [(rolled[p], p - own + size - 1, regions[p] == regions[own]) for p in places]


def _find_taps(y: int, x: int, size: Size, geometry: Geometry) -> list[Tap]:
    rows = _loop_over_an_axis(y, size[0], 0, geometry)
    columns = _loop_over_an_axis(x, size[1], 1, geometry)
    centred = geometry.kind == "sliding" and geometry.border != "shift"
    span = geometry.kernel_size[1] if centred else 2 * geometry.kernel_size[1] - 1
    taps = []
    for (ky, dy, in_rows), (kx, dx, in_columns) in product(rows, columns):
        pixel = None if ky is None or kx is None else (ky, kx)
        counted = in_rows and in_columns and not (pixel is None and geometry.border == "mask")
        taps.append(Tap(pixel, dy * span + dx, counted))
    return taps


def _normalize(logits: Tensor, normalization: str, num_taps: int) -> Tensor:
    if normalization == "softmax":
        exponentials = (logits - logits.max(dim=-1, keepdim=True).values).exp()
        return exponentials / exponentials.sum(dim=-1, keepdim=True)
    if normalization == "identity":
        return logits
    centred = logits - logits.mean(dim=-1, keepdim=True)
    deviation = (centred.square().sum(dim=-1, keepdim=True) / (logits.shape[-1] - 1)).sqrt()
    return math.sqrt(2 / num_taps) * centred / (deviation + 1e-10)


def _attend_to(problem: Problem, normalization: str, y: int, x: int) -> Tensor:
    """One query, (batch, heads, head_dim)."""
    (q, k, rk, rq, rb, scale), v, geometry, outside, _ = problem

    def read(maps: Tensor, beyond: Tensor | None, pixel: Size | None) -> Tensor:
        if pixel is not None:
            return maps[:, pixel[0], pixel[1]]
        return torch.zeros_like(maps[:, 0, 0]) if beyond is None else beyond.expand(len(maps), -1, -1)

    logits, values = [], []
    for pixel, row, counted in _find_taps(y, x, (v.shape[1], v.shape[2]), geometry):
        if not counted:
            continue
        logit = v.new_zeros(len(v), v.shape[3])
        if scale is not None:
            logit = logit + scale * (q[:, y, x] * read(k, outside.k, pixel)).sum(-1)
        if rk is not None:
            logit = logit + (q[:, y, x] * rk[:, row]).sum(-1)
        if rq is not None:
            logit = logit + (read(k, outside.k, pixel) * rq[:, row]).sum(-1)
        if rb is not None:
            logit = logit + rb[:, row]
        logits.append(logit)
        values.append(read(v, outside.v, pixel))
    weights = _normalize(torch.stack(logits, dim=-1), normalization, geometry.num_taps)
    return (weights[..., None] * torch.stack(values, dim=2)).sum(2)


@lru_cache(maxsize=2)
def _run_loops(point: Point) -> Found:
    problem = _make(point)
    operands = {name: x.requires_grad_() for name, x in _operands(problem).items()}
    problem = _replace(problem, operands)
    rows = []
    for y in range(point.size[0]):
        for x in range(point.size[1]):
            rows.append(_attend_to(problem, point.route[2], y, x))
    out = torch.stack(rows, dim=1).view(problem.v.shape)
    return {"out": out.detach(), **_differentiate(out, operands, make_grad(problem))}


def _counts_too_few(point: Point) -> bool:
    """Whether a query counts a single tap, which filter norm refuses."""
    geometry, (height, width) = _make_geometry(point), point.size
    if point.route[2] != "filter_norm":
        return False
    taps = (_find_taps(y, x, point.size, geometry) for y in range(height) for x in range(width))
    return any(sum(tap.counted for tap in own) < 2 for own in taps)


@pytest.mark.parametrize(
    ("point", "backend"),
    [
        pytest.param(*problem.values, id=problem.id, marks=() if problem.values[1] == "reference" else pytest.mark.slow)
        for problem in _with_backends(TINY, "reference")
    ],
)
def test_on_tiny_maps_everything_equals_explicit_loops(point: Point, backend: str) -> None:
    problem = _make(point)
    if _counts_too_few(point):
        with pytest.raises(ValueError, match="at least 2 counted taps"):
            _run(problem, point.route[2], backend)
        return
    _assert_equal(_run(problem, point.route[2], backend), _run_loops(point), torch.float64)


@lru_cache(maxsize=2)
def _run_reference(point: Point) -> Found:
    problem = _make(point)
    wide = _replace(problem, {name: x.double() for name, x in _operands(problem).items()})
    grad_layout = "expanded" if point.layout == "expanded" else "contiguous"
    return _run(wide, point.route[2], "reference", layout=grad_layout)


@pytest.mark.parametrize(
    ("point", "backend"),
    [
        pytest.param(*problem.values, id=problem.id, marks=pytest.mark.slow if number % 2 else ())
        for number, problem in enumerate(_with_backends(GRID))
    ],
)
def test_every_pair_of_levels_equals_the_reference(point: Point, backend: str) -> None:
    problem = _make(point)
    if _counts_too_few(point):
        with pytest.raises(ValueError, match="at least 2 counted taps"):
            _run(problem, point.route[2], backend)
        return
    actual = _run(problem, point.route[2], backend, layout=point.layout)
    _assert_equal(actual, _run_reference(point), point.dtype)


CORNERS = {
    "sliding": Point(("sliding", "zero", "softmax"), ALL_TERMS, (3, 5), (4, 6), head_dim=5, heads=3),
    "clamped": Point(("sliding", "shift", "softmax"), ALL_TERMS, (3, 3), (5, 4), head_dim=5, heads=3),
    "composed": Point(("sliding", "project", "identity"), ALL_TERMS, (3, 3), (5, 4), head_dim=5, heads=3),
    "windows": Point(("shifted", "project", "softmax"), ALL_TERMS, (3, 3), (5, 4), head_dim=5, heads=3),
    "windows-identity": Point(("window", "zero", "identity"), ALL_TERMS, (3, 2), (5, 4), head_dim=5, heads=3),
}
IN_CORNERS = [
    pytest.param(param.values[0], param.values[1], id=f"{param.values[1]}-{name}")
    for name, point in CORNERS.items()
    for param in _with_backends([point])
]


@pytest.mark.parametrize(("point", "backend"), IN_CORNERS)
def test_any_of_the_operands_may_need_a_gradient(point: Point, backend: str) -> None:
    problem, expected = _make(point), _run_reference(point)
    names = list(_operands(problem))
    for wanted in (*names, "q k", "k v", "rk rb", "q v rq", " ".join(names[1:])):
        actual = _run(problem, point.route[2], backend, wanted=wanted)
        assert set(actual) == {"out"} | set(wanted.split()) & set(names)
        _assert_equal(actual, {name: expected[name] for name in actual}, point.dtype)


@pytest.mark.parametrize(("point", "backend"), IN_CORNERS)
def test_an_empty_batch_gives_empty_maps_and_tables_without_a_gradient(point: Point, backend: str) -> None:
    problem = _make(point)
    empty = _replace(problem, {name: x[:0] if x.ndim == 5 else x for name, x in _operands(problem).items()})
    found = _run(empty, point.route[2], backend)
    assert {name: x.shape for name, x in found.items()} == {
        "out": empty.v.shape,
        **{name: x.shape for name, x in _operands(empty).items()},
    }
    assert not any(x.any() for x in found.values())


@pytest.mark.parametrize(("point", "backend"), IN_CORNERS)
def test_what_the_logits_do_not_read_gets_no_gradient(point: Point, backend: str) -> None:
    with_all, biased = _make(point), _make(point._replace(terms="position_bias"))
    needless = {name: x for name, x in _operands(with_all).items() if name in ("q", "k", "outside_k")}
    found = _run(_replace(biased, {**_operands(biased), **needless}), point.route[2], backend)
    assert not any(found.pop(name).any() for name in needless)
    _assert_equal(found, _run_reference(point._replace(terms="position_bias")), point.dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("point", "backend"), [p for p in IN_CORNERS if "identity" not in p.values[0].route])
def test_logits_of_any_height_neither_overflow_nor_vanish(point: Point, backend: str, dtype: torch.dtype) -> None:
    """Their level, on which a softmax does not depend, is far beyond what the exponential can take."""
    problem, moved = _make(point._replace(dtype=dtype)), 500.0
    for sign in (1, -1):
        high = _replace(problem, {**_operands(problem), "rb": problem.terms.rb + sign * moved})
        tolerance = 1e3 if dtype == torch.float64 else 10.0  # logits that are rounded at 500 instead of at 1
        found, expected = _run(high, "softmax", backend), _run_reference(point)
        for name, e in expected.items():
            bound = tolerance * torch.finfo(dtype).eps * 100 * max(1.0, float(e.abs().max()))
            assert bool(((found[name] - e).abs() <= bound).all()), name


@pytest.mark.parametrize("number", [1, 2], ids=["one-thread", "two-threads"])
@pytest.mark.parametrize(("point", "backend"), _with_backends(CORNERS.values(), "reference"))
def test_runs_are_equal_to_the_last_bit(point: Point, backend: str, number: int) -> None:
    """The compiled kernels on any number of threads, the others, whose products are a library's, on as many."""
    problem, before = (
        _make(point._replace(kernel_size=(5, 5), size=(9, 17), head_dim=8, dtype=torch.float32)),
        torch.get_num_threads(),
    )
    runs = []
    for threads in (1 if backend == "cpu" else number, number):
        torch.set_num_threads(threads)
        try:
            runs.append(_run(problem, point.route[2], backend))
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(x, runs[1][name]) for name, x in runs[0].items())


@pytest.mark.parametrize(("point", "backend"), IN_CORNERS)
def test_what_is_not_a_number_is_not_hidden(point: Point, backend: str) -> None:
    problem = _make(point)
    for name in ("q", "k", "v"):
        operands = {other: x.clone() for other, x in _operands(problem).items()}
        operands[name][1, 2, 1, 0, 0] = math.nan
        out = _run(_replace(problem, operands), point.route[2], backend)["out"]
        assert out[1, 2, 1, 0].isnan().any(), name
        assert not out[0].isnan().any(), name
        assert not out[:, :, :, 1:].isnan().any(), name
