"""Laws of the levels of one room by themselves."""

import torch

from paradigms.config import AttentionConfig
from paradigms.laws.specimen import DIM, make_input, make_operator, require
from paradigms.normalization import NORMALIZATIONS


def keeps_what_it_declares(normalization: str, *, masked: bool) -> None:
    """A normalization gives weight zero to taps that are not counted; `weight_sum` and `ignores_constant` are true."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 5, 9, dtype=torch.float64, generator=generator)
    valid = torch.rand(5, 9, generator=generator) < 0.6
    valid[:, :2] = True
    level = NORMALIZATIONS[normalization].from_config(AttentionConfig(normalization=normalization))
    counted = valid if masked else None
    weights = level(logits, counted)
    require(not masked or (weights * ~valid == 0).all(), "a tap that is not counted has a weight")
    if level.weight_sum is not None:
        sums = torch.full(weights.shape[:-1], level.weight_sum, dtype=torch.float64)
        require(torch.allclose(weights.sum(-1), sums), f"the weights do not sum to {level.weight_sum}, as declared")
    is_same = torch.allclose(level(logits + 3.0, counted), weights)
    require(is_same == level.ignores_constant, f"ignores_constant is declared to be {level.ignores_constant}")


def values_taps_outside(neighborhood: str) -> None:
    """The borders of a neighborhood differ in the keys and values of taps outside the map.

    The check is a softmax attention in a corner; values are 3 on the map and 1 for a zero input.
    """
    config = AttentionConfig(neighborhood=neighborhood, window_size=4, kernel_size=3)
    corners = {border: _gather_corner(config, border) for border in config.neighborhood_facts.borders}
    expected = {"mask": 3.0, "shift": 3.0}
    if "zero" in corners:
        share = corners["zero"] / 3.0
        require(0.05 < share < 0.95, f"under zero a corner counts {share:.2f} of its taps inside the map")
        expected["project"] = 3.0 * share + 1.0 * (1.0 - share)
    for border in corners.keys() & expected.keys():
        found = corners[border]
        require(
            abs(found - expected[border]) < 1e-6, f"under {border} a corner gathers {found}, not {expected[border]}"
        )


def _gather_corner(config: AttentionConfig, border: str) -> float:
    operator = make_operator(config.replace(border=border, parameterization=("position_bias",)))
    values = {"v.weight": 2.0 * torch.eye(DIM), "v.bias": torch.ones(DIM)}
    output = {"proj.weight": torch.eye(DIM), "proj.bias": torch.zeros(DIM)}
    operator.load_state_dict({**operator.state_dict(), **values, **output})
    corner: float = operator(torch.ones_like(make_input()))[0, -1, -1, 0].item()
    return corner
