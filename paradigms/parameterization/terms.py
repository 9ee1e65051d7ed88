"""Logits as a sum of terms of Eq. 4 (arXiv:2112.12786)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paradigms.config import AttentionConfig
from paradigms.functional import Geometry, Terms


@dataclass(frozen=True)
class Term:
    """The projections and the position table of one term; None if it has no table."""

    uses_query: bool
    uses_key: bool
    table: str | None


TERMS: dict[str, Term] = {
    "query_key": Term(uses_query=True, uses_key=True, table=None),
    "query_position": Term(uses_query=True, uses_key=False, table="rk"),
    "position_key": Term(uses_query=False, uses_key=True, table="rq"),
    "position_bias": Term(uses_query=False, uses_key=False, table="rb"),
}

TABLE_STD = 0.02


class PositionTable(nn.Module):
    """A learned vector or number for each head and offset. It is a separate module with its own initialization.

    Attributes:
        is_position_table: tells the optimizer that weight decay may exclude it.
        weighs_neighbor: whether it is multiplied with a vector of the neighbor, and has no effect if that is zero.
    """

    is_position_table: ClassVar[bool] = True

    def __init__(self, *shape: int, weighs_neighbor: bool = False) -> None:
        super().__init__()
        self.weighs_neighbor = weighs_neighbor
        self.weight = nn.Parameter(torch.empty(shape))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the table; all initialization rules of timm call this."""
        nn.init.trunc_normal_(self.weight, std=TABLE_STD)


class TermSum(nn.Module):
    """The sum of one to four terms, with only the projections and tables that they need.

    The paper does not state whether heads share r^k and r^q, or how they are initialized. Our choice: one table per
    head with one row per offset, truncated normal with standard deviation 0.02 as for r^b; 1/√head_dim scales q·k only.

    Shape:
        Input (batch, height, width, dim); `q`, `k` (batch, height, width, heads, head_dim); `rk`, `rq` (heads, offsets,
        head_dim); `rb` (heads, offsets).
    """

    scores: ClassVar[str] = "terms"
    is_global: ClassVar[bool] = False

    def __init__(self, terms: Sequence[str], dim: int, num_heads: int, *, num_offsets: int, qkv_bias: bool) -> None:
        super().__init__()
        chosen = [TERMS[name] for name in terms]
        head_dim = dim // num_heads
        self.num_heads = num_heads
        self.scale = head_dim**-0.5 if "query_key" in terms else None
        self.offset_weighs_key = "position_key" in terms
        self.q = nn.Linear(dim, dim, bias=qkv_bias) if any(term.uses_query for term in chosen) else None
        self.k = nn.Linear(dim, dim, bias=qkv_bias) if any(term.uses_key for term in chosen) else None
        tables = {term.table for term in chosen}
        self.rk = PositionTable(num_heads, num_offsets, head_dim) if "rk" in tables else None
        self.rq = PositionTable(num_heads, num_offsets, head_dim, weighs_neighbor=True) if "rq" in tables else None
        self.rb = PositionTable(num_heads, num_offsets) if "rb" in tables else None

    @classmethod
    def from_config(
        cls, config: AttentionConfig, dim: int, num_heads: int, *, geometry: Geometry, qkv_bias: bool
    ) -> "TermSum":
        """Read the fields of this level."""
        return cls(config.parameterization, dim, num_heads, num_offsets=geometry.num_offsets, qkv_bias=qkv_bias)

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Terms:
        """Project the input; kernels compute the sum of the terms."""
        heads = (self.num_heads, -1)
        q = None if self.q is None else self.q(x).unflatten(-1, heads)
        k = None if self.k is None else self.k(x).unflatten(-1, heads)
        rk, rq, rb = (None if table is None else table.weight for table in (self.rk, self.rq, self.rb))
        return Terms(q, k, rk, rq, rb, self.scale)

    def project_zero_key(self) -> Float[Tensor, "heads head_dim"] | None:
        """The key of a pixel whose input is zero; None if it is zero or there are no keys."""
        bias = None if self.k is None else self.k.bias
        return None if bias is None else bias.view(self.num_heads, -1)

    def position_tables(self) -> dict[str, PositionTable]:
        """The position tables that exist, by name."""
        return {name: table for name, table in self.named_children() if isinstance(table, PositionTable)}

    def constant_parameters(self) -> frozenset[str]:
        """Parameters that add the same number to all logits of a query, if every counted tap has a key."""
        has_bias = self.k is not None and self.k.bias is not None
        return frozenset({"k.bias"}) if has_bias and not self.offset_weighs_key else frozenset()
