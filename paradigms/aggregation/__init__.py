"""The room of aggregations: how weights meet values."""

from paradigms.aggregation.channel_filter import ChannelFilter
from paradigms.aggregation.ghost_head import GhostHead
from paradigms.aggregation.weighted_sum import WeightedSum

Aggregator = WeightedSum | GhostHead | ChannelFilter

AGGREGATIONS: dict[str, type[Aggregator]] = {
    "weighted_sum": WeightedSum,
    "ghost_head": GhostHead,
    "channel_filter": ChannelFilter,
}

__all__ = ["AGGREGATIONS", "Aggregator"]
