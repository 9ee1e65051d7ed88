"""Measures a model: accuracy, parameters, multiply-adds and memory."""

import resource
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from harness.data.batch import LabelledBatch


@dataclass(frozen=True)
class Measurement:
    """How a model did on a set of images.

    Attributes:
        top1: percent of the images whose most likely class is right.
        top5: percent of the images with the right class among the five most likely.
        loss: mean cross-entropy.
        predictions: the most likely class of each image.
        labels: the right one.
    """

    top1: float
    top5: float
    loss: float
    predictions: NDArray[np.int64]
    labels: NDArray[np.int64]


@torch.inference_mode()
def measure(model: nn.Module, batches: Iterable[LabelledBatch], device: torch.device) -> Measurement:
    """Evaluate `model`, which is left in eval mode."""
    model.eval()
    losses, ranked, truth = [], [], []
    for images, labels in batches:
        logits = model(images.to(device)).float()
        losses.append(cross_entropy(logits, labels.to(device), reduction="none"))
        ranked.append(logits.topk(min(5, logits.shape[-1])).indices)
        truth.append(labels.to(device))
    return _summarize(torch.cat(losses), torch.cat(ranked), torch.cat(truth))


def _summarize(losses: Tensor, ranked: Tensor, labels: Tensor) -> Measurement:
    correct = ranked == labels[:, None]
    return Measurement(
        top1=100 * correct[:, 0].double().mean().item(),
        top5=100 * correct.any(-1).double().mean().item(),
        loss=losses.double().mean().item(),
        predictions=ranked[:, 0].cpu().numpy(),
        labels=labels.cpu().numpy(),
    )


def count_parameters(model: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_multiply_adds(model: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Of the forward pass of one image of shape (channels, height, width); `model` must be on the meta device.

    On the meta device every operator decomposes into those that torch has formulas for; our own registers its own.
    """
    model.eval()
    constants = {name: parameter.detach() for name, parameter in model.named_parameters()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:  # it refuses outputs that are views of parameters
        torch.func.functional_call(model, constants, (torch.empty(1, *input_shape, device="meta"),))
    total: int = counter.get_total_flops()
    return total // 2


def peak_memory_gb(device: torch.device) -> float:
    """The most memory (10^9 bytes) that this process has held: of the accelerator where it uses one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
