"""The room of aggregations: how weights meet values."""

from paradigms.aggregation.ghost_head import GhostHead
from paradigms.aggregation.level import Aggregation
from paradigms.aggregation.weighted_sum import WeightedSum

AGGREGATIONS: dict[str, type[Aggregation]] = {"weighted_sum": WeightedSum, "ghost_head": GhostHead}
