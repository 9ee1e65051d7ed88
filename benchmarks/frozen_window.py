"""Frozen: Net7 in windows in eager torch. A yardstick that is never optimized.

Tables are expanded to one row a pair of pixels of a window, and every term is a batched matrix product: the fastest
eager form known when it was frozen. Only for maps that are a multiple of the window, without a shift. It imports
nothing of ours, so that a change of ours cannot change it.
"""

import torch
from torch import Tensor


def _partition(x: Tensor, size: int) -> Tensor:
    """(batch, height, width, heads, head_dim) to (batch, windows, taps, heads, head_dim)."""
    x = x.unflatten(2, (-1, size)).unflatten(1, (-1, size))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _merge(x: Tensor, size: int, height: int) -> Tensor:
    """The inverse of `_partition`."""
    x = x.unflatten(2, (size, size)).unflatten(1, (height // size, -1)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)


def make_offsets(size: int) -> Tensor:
    """(taps, taps): the row of a table of (2 size - 1)^2 offsets for each query and key of a window."""
    pixels = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    steps = pixels[None] - pixels[:, None] + size - 1
    return steps[..., 0] * (2 * size - 1) + steps[..., 1]


def attend_net7(  # noqa: PLR0913 - all that the operator has
    q: Tensor, k: Tensor, v: Tensor, rk: Tensor, rq: Tensor, rb: Tensor, offsets: Tensor, *, size: int = 7
) -> Tensor:
    """All four terms of Eq. 4 (arXiv:2112.12786) and softmax; tables have a row for each of (2 size - 1)^2 offsets."""
    height = v.shape[1]
    q, k, v = _partition(q, size), _partition(k, size), _partition(v, size)
    logits = torch.einsum("bwihd,bwjhd->bwhij", q * q.shape[-1] ** -0.5, k)
    logits = logits + torch.einsum("bwihd,hijd->bwhij", q, rk[:, offsets])
    logits = logits + torch.einsum("bwjhd,hijd->bwhij", k, rq[:, offsets])
    weights = (logits + rb[:, offsets]).softmax(dim=-1)
    return _merge(torch.einsum("bwhij,bwjhd->bwihd", weights, v), size, height)
