"""An aggregation: a learned filter is added to the weights of every query, as a depthwise convolution of the values."""

from paradigms.aggregation.weighted_sum import WeightedSum
from paradigms.functional import Aggregation
from paradigms.parameterization.terms import PositionTable


class StaticFilter(WeightedSum):
    """f_i = Σ_j (w_ij + s_{j-i}) v_j with a number s for each channel and offset."""

    kind = "added"  # the formula, for kernels: see `paradigms.functional.Aggregation`

    def __init__(self, dim, num_offsets):
        super().__init__()
        self.filter = PositionTable(dim, num_offsets, weighs_neighbor=True)

    @classmethod
    def from_config(cls, config, dim, num_heads, num_offsets):
        return cls(dim, num_offsets)

    def forward(self, x):
        return Aggregation(add=self.filter.weight[None])  # (1, dim, offsets): one filter for all images

    def position_tables(self):
        return {"filter": self.filter}


AGGREGATIONS = {"static_filter": StaticFilter}
