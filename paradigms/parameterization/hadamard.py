"""Hadamard attention as printed in arXiv:2112.12786 (Eq. 7)."""

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from paradigms.config import AttentionConfig
from paradigms.functional import Geometry, Terms, multiply
from paradigms.parameterization.terms import PositionTable


class Hadamard(nn.Module):
    """h_{j-i} = (q_i⊙k_i) r^k_{j-i} + r^q_{j-i} (q_j⊙k_j) + r^b_{j-i}: second order in the input, at linear cost.

    Every head uses all channels of the product q⊙k, as in Algorithms 2 to 4, which are three ways to compute it. The
    reference kernel gathers neighbors (Algorithm 2); composed kernels shift the result of a 1x1 convolution (3).

    Shape:
        Input (batch, height, width, dim); `q`, `k` (batch, height, width, 1, dim); `rk`, `rq` (heads, offsets, dim);
        `rb` (heads, offsets).
    """

    scores: ClassVar[str] = "shared_terms"
    is_global: ClassVar[bool] = False

    def __init__(self, dim: int, num_heads: int, *, num_offsets: int, qkv_bias: bool) -> None:
        super().__init__()
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.k = nn.Linear(dim, dim, bias=qkv_bias)
        self.rk = PositionTable(num_heads, num_offsets, dim)
        self.rq = PositionTable(num_heads, num_offsets, dim, weighs_neighbor=True)
        self.rb = PositionTable(num_heads, num_offsets)

    @classmethod
    def from_config(
        cls,
        config: AttentionConfig,  # noqa: ARG003 - no field of its own
        dim: int,
        num_heads: int,
        *,
        geometry: Geometry,
        qkv_bias: bool,
    ) -> "Hadamard":
        """Read the fields of this level."""
        return cls(dim, num_heads, num_offsets=geometry.num_offsets, qkv_bias=qkv_bias)

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Terms:
        """Multiply queries and keys of the same pixel."""
        product = multiply(self.q(x), self.k(x)).unsqueeze(-2)  # (B, H, W, 1, C): every head uses all channels
        return Terms(product, product, self.rk.weight, self.rq.weight, self.rb.weight, None)

    def project_zero_key(self) -> Float[Tensor, "1 dim"] | None:
        """The product q⊙k of a pixel whose input is zero; None if it is zero."""
        return None if self.q.bias is None else (self.q.bias * self.k.bias)[None]

    def position_tables(self) -> Mapping[str, PositionTable]:
        """The position tables, by name."""
        return {"rk": self.rk, "rq": self.rq, "rb": self.rb}

    def constant_parameters(self) -> frozenset[str]:
        """None: no parameter adds the same number to all of a query's logits."""
        return frozenset()
