"""Counts parameters and multiply-adds of a cell by its shapes alone."""

from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness.build import build_model
from harness.cell import Cell
from harness.evaluate import count_multiply_adds, count_parameters

_DRAWING = frozenset({Tensor.uniform_, Tensor.normal_, Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_})
"""What initial values are drawn by."""

COSTS: Mapping[str, Callable[..., int]] = {
    "params": lambda model, _shape: count_parameters(model),
    "macs": count_multiply_adds,
}


class _WithoutValues(TorchFunctionMode):
    """Draws no initial values for tensors that have none: models are built in a third of the time."""

    def __torch_function__(
        self, function: Callable[..., Any], _: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function in _DRAWING and args[0].is_meta:
            return args[0]
        return function(*args, **(kwargs or {}))


def measure_cost(cell: Cell, names: Collection[str] = tuple(COSTS)) -> dict[str, float]:
    """The parameters (`params`) of a cell's model, and multiply-adds an image (`macs`), without memory for either."""
    with _WithoutValues():
        model = build_model(cell, replicate=None, device="meta")
    shape = (cell.data.channels, cell.data.image_size, cell.data.image_size)
    return {name: float(COSTS[name](model, shape)) for name in names}


@cache
def count_cost(cell: Cell, name: str) -> int:
    """One of the costs, counted once."""
    return int(measure_cost(cell, (name,))[name])
