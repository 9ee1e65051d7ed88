"""The room of aggregations: how weights meet values."""

from paradigms.aggregation.ghost_head import GhostHead
from paradigms.aggregation.weighted_sum import WeightedSum

AGGREGATIONS: dict[str, type[WeightedSum | GhostHead]] = {"weighted_sum": WeightedSum, "ghost_head": GhostHead}
