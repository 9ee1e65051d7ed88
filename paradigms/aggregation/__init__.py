"""The room of aggregations: how weights and values are combined."""

from paradigms.aggregation.channel_filter import ChannelFilter
from paradigms.aggregation.ghost_head import GhostHead
from paradigms.aggregation.level import Aggregation
from paradigms.aggregation.weighted_sum import WeightedSum

AGGREGATIONS: dict[str, type[Aggregation]] = {
    "weighted_sum": WeightedSum,
    "ghost_head": GhostHead,
    "channel_filter": ChannelFilter,
}
