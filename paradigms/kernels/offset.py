"""`dot`, `mix` and `reverse` as a loop over offsets: views of the map, never K copies of its channels."""

from collections.abc import Iterator

import torch
from torch import Tensor

from paradigms.functional import Geometry

Area = tuple[slice, slice, slice]


def _areas(shape: torch.Size, geometry: Geometry) -> Iterator[tuple[int, Area, Area]]:
    """Each tap, the queries that have it on a map (batch, height, width, ...), and the pixels that they see there."""
    for tap in range(geometry.num_taps):
        here, there = [slice(None)], [slice(None)]
        for dim, index in enumerate(divmod(tap, geometry.kernel_size[1])):
            length = shape[dim + 1]
            move = (index - geometry.kernel_size[dim] // 2) * geometry.dilation[dim]
            first, stop = max(0, -move), min(length, length - move)
            here.append(slice(first, max(first, stop)))
            there.append(slice(first + move, max(first, stop) + move))
        yield tap, (here[0], here[1], here[2]), (there[0], there[1], there[2])


def _accumulator(x: Tensor) -> torch.dtype:
    """What sums are held in: 16-bit numbers are added up in float32."""
    return x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32


def dot(a: Tensor, b: Tensor, geometry: Geometry) -> Tensor:
    """(batch, height, width, heads, head_dim) twice to (batch, height, width, heads, taps)."""
    out = a.new_zeros(*a.shape[:-1], geometry.num_taps)
    for tap, here, there in _areas(a.shape, geometry):
        out[here][..., tap] = (a[here] * b[there]).sum(dim=-1, dtype=_accumulator(a))
    return out


def mix(weights: Tensor, v: Tensor, geometry: Geometry) -> Tensor:
    """(batch, height, width, heads, taps) and (batch, height, width, heads, head_dim) to the latter."""
    out = torch.zeros(v.shape, dtype=_accumulator(v), device=v.device)
    for tap, here, there in _areas(v.shape, geometry):
        out[here].addcmul_(weights[here][..., tap, None].to(out.dtype), v[there].to(out.dtype))
    return out.to(v.dtype)


def reverse(weights: Tensor, geometry: Geometry) -> Tensor:
    """(batch, height, width, heads, taps) to the same."""
    out = torch.zeros_like(weights, memory_format=torch.contiguous_format)
    for tap, here, there in _areas(weights.shape, geometry):
        out[here][..., tap] = weights[there][..., geometry.num_taps - 1 - tap]
    return out
