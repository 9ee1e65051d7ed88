"""Swin-T with other operators: parameters and multiply-adds of one image of 224 pixels a side.

They round to what arXiv:2112.12786 prints, where it does (involution is printed nowhere).
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from paradigms.backbones import SwinTransformer
from paradigms.presets import PRESETS

pytestmark = pytest.mark.usefixtures("quick_meta")

HEADS = {"1": (1, 1, 1, 1), "C/16": (6, 12, 24, 48), "C": (96, 192, 384, 768)}
SIZES = {
    "dwconv": ("C", 24_159_496, 3_726_862_848),
    "ddf": ("1", 46_011_328, 3_888_422_016),
    "d_dwconv": ("C", 51_140_584, 3_753_819_648),
    "involution": ("C/16", 21_827_164, 3_385_465_344),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "dwconv" else pytest.mark.slow) for name in SIZES]
)
def test_swin_t_with_an_operator_has_exactly_its_size(name: str) -> None:
    heads, parameters, multiply_adds = SIZES[name]
    with torch.device("meta"):
        model = SwinTransformer(attention=[PRESETS[name].config] * 4, num_heads=HEADS[heads]).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert counter.get_total_flops() == 2 * multiply_adds
