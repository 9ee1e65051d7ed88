"""Cached tensors that depend on a geometry and sizes alone, such as the index of every tap.

They are made in NumPy, which torch's modes do not see: what is kept is never a fake tensor, nor one of a transform or
of inference mode. While such a mode is active, it gets tensors of its own, made of the arrays, which are not kept.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch

Geometry = Any
"""A `functional.Geometry`; that module imports this one."""

Make = Callable[..., tuple[Any, ...]]
"""From a geometry and sizes to arrays, and to plain values, which stay what they are."""


def load_constants(make: Make, geometry: Geometry, *sizes: int, device: torch.device) -> tuple[Any, ...]:
    """What `make(geometry, *sizes)` returns, its arrays as tensors on a device.

    Sizes that are symbols of a compiler become the numbers that they stand for.
    """
    if torch.compiler.is_compiling():
        from torch.fx.experimental.symbolic_shapes import guard_scalar

        numbers = tuple(guard_scalar(size) for size in sizes)
        fields = geometry.kind, geometry.kernel_size, geometry.dilation, geometry.border, geometry.shift
        return _load_in_graph(make, type(geometry), fields, numbers, device)  # type: ignore[no-any-return]
    return _load(make, geometry, sizes, device)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _load_in_graph(
    make: Make, build: type[Geometry], fields: tuple[Any, ...], sizes: tuple[int, ...], device: torch.device
) -> tuple[Any, ...]:
    """Not traced by torch.compile, which keeps the result; it knows no object that it has built, but its fields."""
    return _load(make, build(*fields), sizes, device)


def _load(make: Make, geometry: Geometry, sizes: tuple[int, ...], device: torch.device) -> tuple[Any, ...]:
    if (
        torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None  # torch.jit.trace: sizes are tensors there
    ):
        made = _make(make, geometry, tuple(map(int, sizes)))
        return tuple(torch.tensor(x, device=device) if isinstance(x, np.ndarray) else x for x in made)
    return _keep(make, geometry, sizes, device)


@lru_cache(maxsize=64)
def _make(make: Make, geometry: Geometry, sizes: tuple[int, ...]) -> tuple[Any, ...]:
    return make(geometry, *sizes)


@lru_cache(maxsize=256)
@torch.inference_mode(mode=False)
def _keep(make: Make, geometry: Geometry, sizes: tuple[int, ...], device: torch.device) -> tuple[Any, ...]:
    made = make(geometry, *sizes)
    return tuple(torch.from_numpy(x).to(device) if isinstance(x, np.ndarray) else x for x in made)
