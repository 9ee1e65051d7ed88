"""Cases of others' code: frozen forms, timm's windows, torch's convolution, NATTEN, FlexAttention."""

from dataclasses import replace
from importlib import import_module
from typing import Any, cast

import torch
from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention
from torch import Tensor, nn
from torch.nn.functional import conv2d

from benchmarks import frozen_unfold, frozen_window
from benchmarks.case import WINDOW, Case, Draw, Setting, Workload, build_differentiable

TAPS = WINDOW * WINDOW


def build_unfold(case: Case, setting: Setting) -> Workload:
    """Net7 over the sliding neighborhood, by unfolding."""
    draw, size = Draw(case.shape, setting), case.shape.map_size
    operands = [draw(*size) for _ in "qkv"] + _draw_tables(draw, size, TAPS)
    cost = 4 * operands[2].numel() * TAPS
    return build_differentiable(lambda: frozen_unfold.attend_net7(*operands), operands, draw(*size), cost)


def build_unfold_mix(case: Case, setting: Setting) -> Workload:
    """Given weights meet unfolded values."""
    draw, size = Draw(case.shape, setting), case.shape.map_size
    operands = [draw(*size[:-1], TAPS), draw(*size)]
    cost = operands[1].numel() * TAPS
    return build_differentiable(lambda: frozen_unfold.mix(*operands), operands, draw(*size), cost)


def build_window(case: Case, setting: Setting) -> Workload:
    """Net7 in windows, eager."""
    draw, size = Draw(case.shape, setting), case.shape.map_size
    q, k, v = (draw(*size) for _ in "qkv")
    rk, rq, rb = _draw_tables(draw, size, (2 * WINDOW - 1) ** 2)
    offsets = frozen_window.make_offsets(WINDOW).to(setting.device)

    def forward() -> Tensor:
        return frozen_window.attend_net7(q, k, v, rk, rq, rb, offsets)

    return build_differentiable(forward, [q, k, v, rk, rq, rb], draw(*size), 4 * v.numel() * TAPS)


def _draw_tables(draw: Draw, size: tuple[int, ...], offsets: int) -> list[Tensor]:
    heads, head_dim = size[-2:]
    return [draw(heads, offsets, *rest, scale=0.02) for rest in ((head_dim,), (head_dim,), ())]


def build_timm(case: Case, setting: Setting) -> Workload:
    """WindowAttention of timm between its two linear layers, not fused: q·k + r^b on windows that are already cut.

    The partition of the map and, where shifted, its move are left out; the mask of shifted windows is in.
    """
    shape, draw = case.shape, Draw(case.shape, setting)
    core = WindowAttention(shape.channels, shape.heads, window_size=WINDOW).to(setting.device, setting.dtype)
    for name in ("qkv", "proj"):
        setattr(core, name, nn.Identity())
    core.fused_attn = False
    mask = _make_mask(case, setting) if case.variant else None
    windows = shape.num_queries // TAPS
    x, grad = draw(windows, TAPS, 3 * shape.channels), draw(windows, TAPS, shape.channels)
    cost = 2 * grad.numel() * TAPS
    return build_differentiable(lambda: core(x, mask), [x, core.relative_position_bias_table], grad, cost)


def _make_mask(case: Case, setting: Setting) -> Tensor:
    """What timm's block adds to the logits of shifted windows."""
    shape = case.shape
    block = SwinTransformerBlock(
        shape.channels, (shape.height, shape.width), shape.heads, window_size=WINDOW, shift_size=WINDOW // 2
    )
    return cast("Tensor", block.attn_mask).to(setting.device, setting.dtype)


def build_depthwise(case: Case, setting: Setting) -> Workload:
    """The depthwise convolution of torch, channels last."""
    shape, draw = case.shape, Draw(case.shape, setting)
    x, grad = (_draw_channels_last(shape.batch, shape.channels, shape.height, shape.width, draw=draw) for _ in "xg")
    weight, bias = draw(shape.channels, 1, WINDOW, WINDOW, scale=0.02), draw(shape.channels, scale=0.02)

    def forward() -> Tensor:
        return conv2d(x, weight, bias, padding=WINDOW // 2, groups=shape.channels)

    return build_differentiable(forward, [x, weight, bias], grad, x.numel() * TAPS)


def _draw_channels_last(*size: int, draw: Draw) -> Tensor:
    return draw(*size).detach().contiguous(memory_format=torch.channels_last).requires_grad_()


def build_natten(case: Case, setting: Setting) -> Workload:
    """NATTEN (arXiv:2204.07143): q·k alone, windows moved inside the map.

    Since 0.20 it has no kernels for the CPU and no relative position bias. On a CPU, or without its compiled library,
    its backend is FlexAttention, uncompiled, which has no backward pass on a CPU. The note of the row states the
    backend: the one that NATTEN chooses, passed to it by name.
    """
    natten: Any = import_module("natten")
    backends: Any = import_module("natten.backends")
    draw, size = Draw(case.shape, setting), case.shape.map_size
    q, k, v = operands = [draw(*size) for _ in "qkv"]
    cost = 2 * v.numel() * TAPS
    backend = backends.choose_backend(q, k, v, torch_compile=False)
    note = f"NATTEN {natten.__version__}, backend {backend}"
    if setting.device == "cpu":
        q, k, v = (operand.detach() for operand in operands)

    def forward() -> Tensor:
        return cast("Tensor", natten.na2d(q, k, v, kernel_size=WINDOW, backend=backend))

    if setting.device == "cpu":
        return Workload(forward, None, [q, k, v], cost, note=note)
    return replace(build_differentiable(forward, operands, draw(*size), cost), note=note)


def build_flex(case: Case, setting: Setting) -> Workload:
    """FlexAttention of torch, compiled: q·k alone, taps outside the map not counted; no backward pass on a CPU."""
    flex: Any = import_module("torch.nn.attention.flex_attention")
    shape, draw, (batch, height, width, heads, head_dim) = case.shape, Draw(case.shape, setting), case.shape.map_size
    operands = [draw(batch, heads, height * width, head_dim) for _ in "qkv"]

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        down, across = query // width - key // width, query % width - key % width
        inside: Tensor = (down.abs() <= WINDOW // 2) & (across.abs() <= WINDOW // 2)
        return inside

    pixels = shape.height * shape.width
    mask = flex.create_block_mask(sees, None, None, pixels, pixels, device=setting.device)
    attention: Any = torch.compile(flex.flex_attention)
    cost = 2 * operands[2].numel() * TAPS
    if setting.device == "cpu":
        plain = [operand.detach() for operand in operands]
        return Workload(lambda: attention(*plain, block_mask=mask), None, plain, cost)
    grad = draw(batch, heads, pixels, head_dim)
    return build_differentiable(lambda: attention(*operands, block_mask=mask), operands, grad, cost)
