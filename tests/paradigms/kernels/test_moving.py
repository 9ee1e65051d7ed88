"""Compiled kernels for taps whose offset depends on their query: border `shift`, whole chunks, filters in windows."""

from typing import Any

import pytest
import torch
from torch import Tensor

from paradigms.config import TERMS, AttentionConfig
from paradigms.functional import Geometry
from paradigms.kernels import choose_kernel, cpu, fused, reference
from paradigms.laws.operator import differentiate
from paradigms.laws.specimen import make_input, make_operator
from paradigms.normalization import FilterNorm, Identity, Softmax

pytestmark = pytest.mark.skipif(not cpu.is_available(), reason="the library is not built")

NEIGHBORHOODS: dict[str, dict[str, Any]] = {
    "shift": {"neighborhood": "sliding_window", "border": "shift", "kernel_size": (3, 5)},
    "shift-dilated": {"neighborhood": "sliding_window", "border": "shift", "kernel_size": (3, 3), "dilation": (2, 3)},
    "chunk": {"neighborhood": "sliding_chunk", "border": "mask", "chunk_size": (2, 3)},
    "chunk-zero": {"neighborhood": "sliding_chunk", "border": "zero", "chunk_size": (2, 3)},
    "window": {"neighborhood": "local_window", "border": "project", "window_size": (2, 3)},
    "shifted": {"neighborhood": "local_window", "border": "mask", "window_size": (4, 3), "shift_size": (2, 1)},
}
LEVELS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "filter_norm": {"normalization": "filter_norm"},
    "identity": {"normalization": "identity"},
    "added": {"aggregation": "ghost_head", "normalization": "identity"},
    "multiplied": {"aggregation": "ghost_head", "ghost_lambda": 1.0, "ghost_gamma": 0.0, "ghost_map": "interleaved"},
    "both": {"aggregation": "ghost_head", "ghost_lambda": 1.0, "normalization": "filter_norm"},
    "hadamard": {"parameterization": ("hadamard",)},
}
SIZES = [(9, 8), (1, 9), (2, 20), (17, 5)]
"""The last three are smaller than the kernel along one axis, or as wide as more than one vector."""


@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS.keys())
@pytest.mark.parametrize("neighborhood", NEIGHBORHOODS.values(), ids=NEIGHBORHOODS.keys())
@pytest.mark.usefixtures("each_instruction_set")
def test_output_and_gradients_equal_the_reference(neighborhood: dict[str, Any], levels: dict[str, Any]) -> None:
    config = AttentionConfig(**{"parameterization": TERMS, **neighborhood, **levels})
    operator = make_operator(config)
    for size in SIZES:
        if config.normalization == "filter_norm" and size[0] == 1:
            continue  # some queries count one tap
        x = make_input(*size)
        actual, expected = differentiate(operator, x, "auto"), differentiate(operator, x, "reference")
        scale = max(1.0, *(float(e.detach().abs().max()) for e in expected))
        assert all(float((a - e).detach().abs().max()) <= 1e-12 * scale for a, e in zip(actual, expected, strict=True))


@pytest.mark.parametrize("normalization", [Softmax(), FilterNorm(), Identity()], ids=lambda level: level.kind)
@pytest.mark.parametrize("aggregation", ["weighted_sum", "added", "filtered"])
@pytest.mark.parametrize(
    "geometry",
    [
        Geometry("sliding", (7, 7), border="shift"),
        *(Geometry("chunk", (9, 9), border=name) for name in ("zero", "mask")),
    ],
    ids=str,
)
def test_compiled_kernels_are_chosen(geometry: Geometry, aggregation: str, normalization: Any) -> None:
    chosen = choose_kernel(geometry, normalization, aggregation, device=torch.device("cpu"))
    assert chosen.backend == "cpu"


@pytest.mark.parametrize("filtered", [False, True], ids=["plain", "filtered"])
@pytest.mark.parametrize(
    "geometry",
    [
        Geometry("sliding", (3, 3), (1, 2), "shift"),
        Geometry("chunk", (6, 3), border="mask"),
        Geometry("window", (2, 5)),
    ],
    ids=str,
)
def test_the_products_can_be_differentiated_twice(geometry: Geometry, filtered: bool) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    maps, weights = [draw(2, 4, 5, 2, 3) for _ in range(2)], draw(2, 4, 5, 2, geometry.num_taps)
    filters = [draw(2, 2, geometry.num_offsets, 3)] if filtered else [None]
    how, operators = fused.write_geometry(geometry), torch.ops.paradigms
    for operator, operands in (
        (operators.moving_dot, (*maps, *filters)),
        (operators.moving_mix, (weights, maps[0], *filters)),
        (operators.moving_spread, (weights, maps[0], *filters)),
        (operators.moving_correlate, (weights, *maps)),
    ):

        def call(*given: Any, operator: Any = operator) -> Tensor:
            return operator(*given, how)  # type: ignore[no-any-return]

        assert torch.autograd.gradcheck(call, operands, fast_mode=True)
        assert torch.autograd.gradgradcheck(call, operands, fast_mode=True)
        torch.library.opcheck(operator.default, (*operands, how), test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("normalization", [Softmax(), FilterNorm(), Identity()], ids=lambda level: level.kind)
def test_filters_in_windows_are_compiled(normalization: Any) -> None:
    geometry, device = Geometry("window", (7, 7), border="project", shift=(3, 3)), torch.device("cpu")
    for scores in ("terms", "shared_terms"):
        assert choose_kernel(geometry, normalization, "filtered", scores, device=device).backend == "cpu"


@pytest.mark.parametrize("windows", [1, 8, 70])
@pytest.mark.parametrize("head_dim", [1, 8, 19])
@pytest.mark.usefixtures("each_instruction_set")
def test_products_in_windows_equal_the_reference(head_dim: int, windows: int) -> None:
    """Fewer windows than a vector has lanes, and more than an item takes; each image has its own filter."""
    geometry = Geometry("window", (3, 2))
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    size = 2, 3 * windows, 2, 3
    a, b, weights, filters = draw(*size, head_dim), draw(*size, head_dim), draw(*size, 6), draw(2, 3, 15, head_dim)
    for name, operands in {
        "dot": (a, b, filters),
        "mix": (weights, b, filters),
        "spread": (weights, a, filters),
        "correlate": (weights, a, b),
    }.items():
        actual, expected = (getattr(module, name)(*operands, geometry) for module in (cpu, reference))
        assert float((actual - expected).abs().max()) <= 1e-12 * max(1.0, float(expected.abs().max()))
        if name != "correlate":
            plain = [getattr(module, name)(*operands[:2], None, geometry) for module in (cpu, reference)]
            assert float((plain[0] - plain[1]).abs().max()) <= 1e-12 * max(1.0, float(plain[1].abs().max()))


@pytest.mark.parametrize("neighborhood", NEIGHBORHOODS.values(), ids=NEIGHBORHOODS.keys())
def test_no_bit_depends_on_the_number_of_threads(neighborhood: dict[str, Any]) -> None:
    # The filter that is added in windows is a product of torch's BLAS, which promises no such thing.
    gamma = 0.0 if neighborhood["neighborhood"] == "local_window" else 1.0
    filters: dict[str, Any] = {"aggregation": "ghost_head", "ghost_lambda": 1.0, "ghost_gamma": gamma}
    config = AttentionConfig(parameterization=TERMS, **filters, **neighborhood)
    operator, x, runs = make_operator(config).float(), make_input(9, 20).float(), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            runs.append(differentiate(operator, x, "auto")[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[1], runs[2])
