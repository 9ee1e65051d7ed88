"""Frozen: sliding attention by unfolding, as in published code. A yardstick that is never optimized.

Every key and value is copied once for each of the k x k queries that see it, then batched matrix products do the rest
(as in stand-alone self-attention, arXiv:1906.05909, and the fallback of ELSA's released code). Taps outside the map are
zero and counted. It imports nothing of ours, so that a change of ours cannot change it.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad


def unfold(x: Tensor, size: int) -> Tensor:
    """(batch, height, width, heads, head_dim) to (batch, height, width, heads, head_dim, taps), copied."""
    halo = size // 2
    views = pad(x, (0, 0, 0, 0, halo, halo, halo, halo)).unfold(1, size, 1).unfold(2, size, 1)
    return views.flatten(-2)


def attend_net7(q: Tensor, k: Tensor, v: Tensor, rk: Tensor, rq: Tensor, rb: Tensor, *, size: int = 7) -> Tensor:
    """All four terms of Eq. 4 (arXiv:2112.12786) and softmax; tables are (heads, taps, head_dim) and (heads, taps)."""
    keys = unfold(k, size)
    logits = torch.matmul((q * q.shape[-1] ** -0.5).unsqueeze(-2), keys).squeeze(-2)
    logits = logits + torch.einsum("byxhd,hod->byxho", q, rk)
    logits = logits + torch.einsum("byxhdo,hod->byxho", keys, rq)
    weights = (logits + rb).softmax(dim=-1)
    return mix(weights, v, size=size)


def mix(weights: Tensor, v: Tensor, *, size: int = 7) -> Tensor:
    """Weights (batch, height, width, heads, taps) meet unfolded values."""
    return torch.matmul(unfold(v, size), weights.unsqueeze(-1)).squeeze(-1)
