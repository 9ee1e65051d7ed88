"""A parameterization: cosine attention with a learned scale, as in Swin V2 (arXiv:2111.09883)."""

import math

import torch
from torch import nn
from torch.nn.functional import normalize

from paradigms.functional import Terms
from paradigms.parameterization.terms import PositionTable


class Cosine(nn.Module):
    """Logits τ_h cos(q_i, k_j) + r^b_{j-i}, τ at most 100 and 10 at the start."""

    scores = "terms"
    is_global = False

    def __init__(self, dim, num_heads, num_offsets, qkv_bias):
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.k = nn.Linear(dim, dim, bias=qkv_bias)
        self.log_scale = nn.Parameter(torch.full((num_heads,), math.log(10)))
        self.rb = PositionTable(num_heads, num_offsets)

    @classmethod
    def from_config(cls, config, dim, num_heads, *, geometry, qkv_bias):
        return cls(dim, num_heads, geometry.num_offsets, qkv_bias)

    def forward(self, x):
        q, k = (normalize(linear(x).unflatten(-1, (self.num_heads, -1)), dim=-1) for linear in (self.q, self.k))
        scale = self.log_scale.clamp(max=math.log(100)).exp()[:, None]
        return Terms(q * scale, k, None, None, self.rb.weight, 1.0)

    def project_zero_key(self):
        """What `forward` makes of a pixel that is zero: the normalized bias."""
        return None if self.k.bias is None else normalize(self.k.bias.view(self.num_heads, -1), dim=-1)

    def position_tables(self):
        return {"rb": self.rb}

    def constant_parameters(self):
        """None: the key's bias is normalized together with the key."""
        return frozenset()


PARAMETERIZATIONS = {"cosine": Cosine}
