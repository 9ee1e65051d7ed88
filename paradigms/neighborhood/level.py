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
        """The geometry for the kernels."""
        ...

    @property
    def period(self) -> tuple[int, int]:
        """Translating the input by this many pixels translates the output equally, away from the border."""
        ...
