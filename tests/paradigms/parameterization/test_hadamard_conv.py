"""ELSA against the formula of the code released with arXiv:2112.12786."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from paradigms.attention import LocalAttention, build_attention
from paradigms.kernels import cpu
from paradigms.presets import PRESETS
from paradigms.released import convert_released

from .. import released_elsa
from ..conftest import make_input
from ..released_elsa import Weights, attention_shapes, draw

DIM, HEADS, GROUP_WIDTH = 12, 3, 4
NAME = "layers.0.blocks.0.attn."
SIZES = {"large": (9, 8), "smaller-than-the-kernel": (3, 5), "one-pixel": (1, 1)}
BACKENDS = [
    "reference",
    "torch",
    "auto",
    pytest.param("cpu", marks=pytest.mark.skipif(not cpu.is_available(), reason="the library is not built")),
]


def _convert(weights: Weights) -> Weights:
    """To the names of one operator: a linear map, so that it converts gradients too."""
    released = {f"{NAME}{name}": tensor for name, tensor in weights.items()}
    converted = convert_released(released | {"head.weight": torch.zeros(1)})
    return {name.removeprefix(NAME): tensor for name, tensor in converted.items() if name.startswith(NAME)}


def _build(weights: Weights, backend: str) -> LocalAttention:
    both = weights["ghost_head"].ndim == 5
    config = replace(PRESETS["elsa"].config, group_width=GROUP_WIDTH, ghost_lambda=float(both))
    operator = build_attention(config, dim=DIM, num_heads=HEADS).double()
    operator.load_state_dict(_convert(weights))
    operator.backend = backend
    return operator


def _differentiate(y: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    weight = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(4))
    return list(torch.autograd.grad((y * weight).sum(), leaves))


def test_how_elsa_starts_changes_neither_its_formula_nor_its_parameters() -> None:
    config = PRESETS["elsa"].config
    ours, released = (
        build_attention(replace(config, initialization=start), dim=DIM, num_heads=HEADS)
        for start in ("backbone", "released")
    )
    released.load_state_dict(ours.state_dict())
    x = make_input(dim=DIM).float()
    assert torch.equal(ours(x), released(x))


@pytest.mark.parametrize("both", [False, True], ids=["added", "multiplied-and-added"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("backend", BACKENDS)
def test_elsa_is_the_released_formula(backend: str, size: tuple[int, int], both: bool) -> None:
    """Output, border included, and the gradient of the input and of every weight."""
    weights = draw(attention_shapes(DIM, HEADS, GROUP_WIDTH, both=both))
    operator, x = _build(weights, backend), make_input(*size, DIM).requires_grad_()
    expected = released_elsa.attend({name: w.requires_grad_() for name, w in weights.items()}, x, HEADS)
    actual = operator(x)
    assert torch.allclose(actual, expected, rtol=1e-11, atol=1e-11)
    x_gradient, *gradients = _differentiate(expected, [x, *weights.values()])
    expected_gradients = _convert(dict(zip(weights, gradients, strict=True)))
    parameters = dict(operator.named_parameters())
    found_x, *found = _differentiate(actual, [x, *parameters.values()])
    assert torch.allclose(found_x, x_gradient, rtol=1e-11, atol=1e-10)
    assert parameters.keys() == expected_gradients.keys()
    for name, gradient in zip(parameters, found, strict=True):
        assert torch.allclose(gradient, expected_gradients[name], rtol=1e-11, atol=1e-10), name


@pytest.mark.parametrize(
    ("dim", "group_width", "dim_qk"), [(96, 4, 64), (384, 8, 256), (128, 8, 88), (256, 8, 176), (512, 8, 344)]
)
def test_queries_and_keys_are_as_wide_as_released(dim: int, group_width: int, dim_qk: int) -> None:
    with torch.device("meta"):
        config = replace(PRESETS["elsa"].config, group_width=group_width)
        operator = build_attention(config, dim=dim, num_heads=4)
    assert operator.parameterization.q.out_features == dim_qk
    assert released_elsa.count_qk(dim, group_width) == dim_qk
