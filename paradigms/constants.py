"""Cached tensors that depend on a geometry and sizes alone, such as the index of every tap.

They are computed in NumPy, which torch's modes do not affect. Fake tensors, and tensors of a transform or of inference
mode, are therefore never cached: under such a mode, tensors are made from the cached arrays and not stored.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch

Geometry = Any
"""A `functional.Geometry`; that module imports this one."""

Make = Callable[..., tuple[Any, ...]]
"""A function of a geometry and sizes that returns arrays or plain values."""


def load_constants(make: Make, geometry: Geometry, *sizes: int, device: torch.device) -> tuple[Any, ...]:
    """The cached result of `make(geometry, *sizes)`; arrays become tensors on a device.

    Symbolic sizes of a compiler are replaced by their numbers.
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
    """The same for torch.compile, which stores the result as a constant; it needs the fields of the geometry."""
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
