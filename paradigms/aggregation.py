"""The room of aggregations: how weights meet values."""

import torch
from jaxtyping import Float
from torch import Tensor


class WeightedSum:
    """f_i = Σ_j w_ij v_j, each head on its own channels."""

    kind = "weighted_sum"
    products = 1

    def __call__(
        self,
        weights: Float[Tensor, "batch heads queries taps"],
        values: Float[Tensor, "batch queries taps heads head_dim"],
    ) -> Float[Tensor, "batch queries heads head_dim"]:
        """Apply the weights."""
        return torch.einsum("bhnk,bnkhd->bnhd", weights, values)


AGGREGATIONS: dict[str, type[WeightedSum]] = {"weighted_sum": WeightedSum}
