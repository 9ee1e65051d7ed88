"""A neighborhood: the pixels of the query's own row."""

from dataclasses import dataclass

from paradigms.facts import NeighborhoodFacts, to_pair
from paradigms.functional import Geometry


@dataclass(frozen=True)
class Row:
    """The `kernel_size` pixels left and right of the query, itself included."""

    facts = NeighborhoodFacts(symbol="Θ", borders=("zero", "mask", "project"), size="kernel_size")

    columns: int
    border: str

    @classmethod
    def from_config(cls, config):
        return cls(to_pair(config.kernel_size)[1], config.outside_rule)

    @property
    def geometry(self):
        """An area of one row that moves with the query; the kernels of sliding windows compute it."""
        return Geometry("sliding", (1, self.columns), border=self.border)

    @property
    def period(self):
        """Moving the input by one pixel moves the output by one pixel."""
        return 1, 1


NEIGHBORHOODS = {"row": Row}
