"""What a model costs: parameters, multiply-adds, memory."""

import resource
import sys
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


class _Counted(nn.Module):
    """The forward pass whose operations count: `count_forward` of a model whose own depends on what it sees."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> object:
        return getattr(cast("Any", self.model), "count_forward", self.model)(images)


def count_multiply_adds(model: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Of the forward pass of one image of shape (channels, height, width); `model` must be on the meta device.

    Of a model with a method `count_forward` it is that instead. On the meta device every operator decomposes into those
    that torch has formulas for; our own registers its own.
    """
    counted = _Counted(model.eval())
    constants = {name: parameter.detach() for name, parameter in counted.named_parameters()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:  # it refuses outputs that are views of parameters
        torch.func.functional_call(counted, constants, (torch.empty(1, *input_shape, device="meta"),))
    total: int = counter.get_total_flops()
    return total // 2


def peak_memory_gb(device: torch.device) -> float:
    """The most memory (10^9 bytes) that this process has held: of the accelerator where it uses one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
