"""Sliding windows (Θ): a query sees the area around itself."""

from dataclasses import dataclass

from paradigms.config import AttentionConfig
from paradigms.facts import to_pair
from paradigms.functional import Geometry


@dataclass(frozen=True)
class SlidingWindow:
    """The area centred on the query, one offset a tap.

    The border `shift` moves the area inside the map instead (arXiv:2204.07143); then a query near the border is not
    its centre.
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
