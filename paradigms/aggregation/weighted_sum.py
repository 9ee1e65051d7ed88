"""The weighted sum of Eq. 4 (arXiv:2112.12786)."""

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from paradigms.config import AttentionConfig
from paradigms.functional import Aggregation


class WeightedSum(nn.Module):
    """f_i = Σ_j w_ij v_j, each head on its own channels.

    Shape:
        Input (batch, height, width, dim), whose values are not used; output constants for the kernels.
    """

    kind = "weighted_sum"
    is_global: ClassVar[bool] = False

    @classmethod
    def from_config(cls, config: AttentionConfig, dim: int, num_heads: int, num_offsets: int) -> "WeightedSum":  # noqa: ARG003
        """This level has no fields."""
        return cls()

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Aggregation:  # noqa: ARG002
        """Return no filters."""
        return Aggregation()

    def split_heads(self, v: Float[Tensor, "*map dim"], num_heads: int) -> Float[Tensor, "*map heads head_dim"]:
        """Split channels into heads; adjacent channels share a head."""
        return v.unflatten(-1, (num_heads, -1))  # type: ignore[no-any-return]

    def join_heads(
        self, v: Float[Tensor, "batch height width heads head_dim"]
    ) -> Float[Tensor, "batch height width dim"]:
        """The inverse of `split_heads`."""
        return v.flatten(-2)

    def position_tables(self) -> Mapping[str, nn.Module]:
        """This level has no tables."""
        return {}
