"""The room of neighborhoods: which keys a query sees (Φ of Eq. 4, arXiv:2112.12786).

A new neighborhood is a file here with an entry below and an entry in `paradigms.facts.NEIGHBORHOODS`. If no kind of
geometry describes it, it also needs a rule for one axis in `paradigms.functional.AXIS_RULES`.
"""

from paradigms.neighborhood.level import Neighborhood
from paradigms.neighborhood.local_window import LocalWindow
from paradigms.neighborhood.sliding_chunk import SlidingChunk
from paradigms.neighborhood.sliding_window import SlidingWindow

__all__ = ["NEIGHBORHOODS", "Neighborhood"]

NEIGHBORHOODS: dict[str, type[Neighborhood]] = {
    "local_window": LocalWindow,
    "sliding_window": SlidingWindow,
    "sliding_chunk": SlidingChunk,
}
