"""Sliding windows (Θ): a query sees the area around itself."""

from dataclasses import dataclass

from paradigms.config import AttentionConfig
from paradigms.facts import to_pair
from paradigms.functional import Geometry


@dataclass(frozen=True)
class SlidingWindow:
    """A query sees the area centred on itself, with one offset per tap.

    The border `shift` moves the area inside the map (arXiv:2204.07143), so that it is not centred on queries near the
    edge.
    """

    kernel_size: tuple[int, int]
    dilation: tuple[int, int]
    border: str

    @classmethod
    def from_config(cls, config: AttentionConfig) -> "SlidingWindow":
        """Read the fields of this level."""
        return cls(to_pair(config.kernel_size), to_pair(config.dilation), config.outside_rule)

    @property
    def geometry(self) -> Geometry:
        """An area that moves with the query."""
        return Geometry("sliding", self.kernel_size, dilation=self.dilation, border=self.border)

    @property
    def period(self) -> tuple[int, int]:
        """One pixel along each axis."""
        return (1, 1)
