"""Forecasts the memory of a training step from shapes alone, by fake tensors.

The forward pass runs once with fake tensors at the requested batch size. Each storage that autograd keeps for the
backward pass is counted once: a fused operator keeps a few tensors, an unfused one keeps all its maps. In the backward
pass, an operator needs the gradients of its inputs and outputs in addition to the tensors that are still kept. The
transient part is the amount by which the largest such sum exceeds the sum of all kept tensors.

Not included are temporary tensors within an operator (blocks of the backend `torch`: a quarter of a GB on an
accelerator), the allocator's rounding, CUDA's context (about half a GB), and the labels of tokens with the tensors that
their loss keeps.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.build import build_model, describe_kernels
from harness.cell import Cell
from harness.optim import build_optimizer

GPU = "cuda"
"""The default device of a forecast; it need not be present."""


@dataclass(frozen=True)
class Forecast:
    """Memory of one training step on one device, in bytes.

    Attributes:
        parameters: parameters and buffers, and their moving average if the recipe has one.
        gradients: gradients of the parameters.
        optimizer: states of the optimizer.
        images: the batch.
        saved: tensors that the forward pass saves for the backward pass, without the batch and the parameters.
        transient: additional memory of the backward pass at its peak.
    """

    parameters: int
    gradients: int
    optimizer: int
    images: int
    saved: int
    transient: int

    @property
    def total(self) -> int:
        """The peak of the step."""
        parts = self.parameters, self.gradients, self.optimizer, self.images, self.saved, self.transient
        return sum(parts)


def name_kernels(device: str) -> str:
    """The backend in a forecast for this device, if a cell has the backend `auto`."""
    return describe_kernels(torch.device(device))


def can_forecast(device: str = GPU) -> bool:
    """Whether torch can compute with fake tensors of such a device here.

    For a GPU that is absent it needs torch 2.14 built with CUDA: older versions (2.8 and 2.9 were tried) and builds
    without CUDA (2.13) abort the process.
    """
    if torch.device(device).type != "cuda" or torch.cuda.is_available():
        return True
    return torch.version.cuda is not None and Version(torch.__version__) >= Version("2.14")


def forecast_memory(cell: Cell, *, num_images: int, device: str = GPU) -> Forecast:
    """Forecast the memory of training `cell` on a `device` (`cuda`, `cpu`), which need not exist (see `can_forecast`).

    Kernels are those that the backend of the cell selects for this device; `num_images` is the batch on it.

    Raises:
        ValueError: a backend that the cell names does not run on this device.
    """
    model = build_model(cell, replicate=None, device="meta").train()
    shape = (num_images, cell.data.channels, cell.data.image_size, cell.data.image_size)
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.empty(shape, device=device)
        given = {name: _make_empty(tensor, device) for name, tensor in _list_tensors(model)}
        kept = _KeptTensors([*given.values(), images])
        with _autocast(device, cell.training.precision), kept, saved_tensors_hooks(kept.keep, lambda tensor: tensor):
            functional_call(model, given, (images,))
        optimizer = _count_states(model, cell)
    parameters = _count_bytes(given.values()) * (1 if cell.training.ema_decay is None else 2)
    gradients = _count_bytes(parameter for parameter in model.parameters() if parameter.requires_grad)
    return Forecast(
        parameters=parameters,
        gradients=gradients,
        optimizer=optimizer,
        images=images.nbytes,
        saved=kept.saved,
        transient=kept.peak - kept.saved,
    )


class _KeptTensors(TorchDispatchMode):
    """Counts the bytes that autograd saves, and their sum with the gradients of each operator.

    Attributes:
        saved: bytes saved so far; tensors of `given` do not count.
        peak: the largest sum of bytes saved up to an operator and of its gradients in the backward pass.
    """

    def __init__(self, given: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.saved, self.peak, self._gradients = 0, 0, 0
        self._storages = {storage._cdata: storage for storage in (tensor.untyped_storage() for tensor in given)}

    def keep(self, tensor: Tensor) -> Tensor:
        """The hook of a saved tensor."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._storages:
            self._storages[storage._cdata] = storage  # a reference, so that no other storage gets its address
            self.saved += storage.nbytes()
        self._compare()
        return tensor

    def __torch_dispatch__(
        self,
        operator: Callable[..., Any],
        _: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        found = operator(*args, **(kwargs or {}))
        read = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor) and leaf.requires_grad]
        made = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        is_view = bool({x.untyped_storage()._cdata for x in read} & {x.untyped_storage()._cdata for x in made})
        if read and not is_view:  # the gradient of a view is a view
            self._gradients = _count_bytes([*read, *made])
            self._compare()
        return found

    def _compare(self) -> None:
        """Update the peak; called for each saved tensor, since an operator saves its tensors after it has run."""
        self.peak = max(self.peak, self.saved + self._gradients)


def _list_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _make_empty(tensor: Tensor, device: str) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device, requires_grad=tensor.requires_grad)


def _count_states(model: nn.Module, cell: Cell) -> int:
    """Bytes of the states of the optimizer, after one step on the CPU, since the device may be absent."""
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    optimizer = build_optimizer(model, cell.training)
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    return _count_bytes(value for value in states if isinstance(value, Tensor))


def _count_bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


@contextmanager
def _autocast(device: str, precision: str) -> Iterator[None]:
    """The same as `torch.autocast` in `harness.train`, which raises an error if the device does not exist."""
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    with ExitStack() as stack:
        stack.callback(torch.set_autocast_enabled, device, before[0])
        stack.callback(torch.set_autocast_dtype, device, before[1])
        stack.callback(torch.clear_autocast_cache)
        torch.set_autocast_enabled(device, precision != "float32")
        torch.set_autocast_dtype(device, getattr(torch, precision))
        yield
