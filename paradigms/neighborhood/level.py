"""The protocol of a neighborhood."""

from typing import Protocol, runtime_checkable

from paradigms.config import AttentionConfig
from paradigms.functional import Geometry


@runtime_checkable
class Neighborhood(Protocol):
    """Which keys a query sees."""

    @classmethod
    def from_config(cls, config: AttentionConfig) -> "Neighborhood":
        """Read the fields of this level."""
        ...

    @property
    def geometry(self) -> Geometry:
        """What kernels need to know."""
        ...

    @property
    def period(self) -> tuple[int, int]:
        """Moving the input by so many pixels moves the output alike, away from the border."""
        ...
