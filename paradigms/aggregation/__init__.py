"""The room of aggregations: how weights meet values."""

from paradigms.aggregation.ghost_head import GhostHead
from paradigms.aggregation.weighted_sum import WeightedSum

Aggregator = WeightedSum | GhostHead

AGGREGATIONS: dict[str, type[Aggregator]] = {"weighted_sum": WeightedSum, "ghost_head": GhostHead}

__all__ = ["AGGREGATIONS", "Aggregator"]
