"""The machine's limits on one thread: matrix products and copies, measured like every case."""

from dataclasses import dataclass

import torch

from benchmarks.case import Setting
from benchmarks.timing import time_call

SECONDS = 0.5


@dataclass(frozen=True)
class Ceiling:
    """FLOP per second of a large matrix product and bytes per second of a large copy (each byte read and written)."""

    flops: float
    bandwidth: float


def measure_ceiling(setting: Setting, *, side: int | None = None, numbers: int = 2**25) -> Ceiling:
    """With one thread; sizes are those at which the figures no longer grow."""
    side = side or (1536 if setting.device == "cpu" else 8192)
    left = torch.ones(side, side, device=setting.device, dtype=setting.dtype)
    out = torch.empty_like(left)
    source = torch.ones(numbers, device=setting.device, dtype=setting.dtype)
    target = torch.empty_like(source)
    _, product = time_call(lambda: torch.mm(left, left, out=out), device=setting.device, seconds=SECONDS)
    _, copy = time_call(lambda: target.copy_(source), device=setting.device, seconds=SECONDS)
    return Ceiling(flops=2 * side**3 / product, bandwidth=2 * source.nbytes / copy)
