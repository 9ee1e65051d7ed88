"""Sizes on the meta device, and weights copied from timm's models into ours."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from paradigms.backbones import DeiT


def size_on_meta(model: nn.Module, side: int) -> tuple[float, float]:
    """Millions of parameters, and thousands of millions of multiply-adds of one image."""
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, side, side, device="meta"))
    return sum(p.numel() for p in model.parameters()) / 1e6, counter.get_total_flops() / 2e9


def copy_from_timm(ours: nn.Module, theirs: nn.Module) -> None:
    """Load timm's weights: `qkv` is split into q, k and v, and the table of a window transposed."""
    weights: dict[str, Tensor] = {}
    for name, value in theirs.state_dict().items():
        weights.update(_translate(name, value, ".attn.operator." if isinstance(ours, DeiT) else ".attn."))
    ours.load_state_dict(weights)


def _translate(name: str, value: Tensor, place: str) -> dict[str, Tensor]:
    before, found, after = name.partition(".attn.")
    if not found:
        return {name: value}
    if after.startswith("qkv."):
        q, k, v = value.chunk(3)
        rooms = {"parameterization.q": q, "parameterization.k": k, "v": v}
        return {before + place + room + after.removeprefix("qkv"): part for room, part in rooms.items()}
    if after == "relative_position_bias_table":
        return {before + place + "parameterization.rb.weight": value.T.flip(1)}
    return {before + place + after: value}
