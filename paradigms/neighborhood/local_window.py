"""Local windows (Ω): the map is partitioned into windows, shifted or not."""

from dataclasses import dataclass

from paradigms.config import AttentionConfig
from paradigms.facts import to_pair
from paradigms.functional import Geometry


@dataclass(frozen=True)
class LocalWindow:
    """A query sees its own window (arXiv:2103.14030); in a shifted block, windows are moved by `shift`.

    If the map is not a multiple of the window, it is padded at its end by the rule `border`.
    """

    window_size: tuple[int, int]
    shift: tuple[int, int]
    border: str

    @classmethod
    def from_config(cls, config: AttentionConfig) -> "LocalWindow":
        """Read the fields of this level."""
        return cls(to_pair(config.window_size), to_pair(config.shift_size or 0), config.outside_rule)

    @property
    def geometry(self) -> Geometry:
        """The partition into windows."""
        return Geometry("window", self.window_size, border=self.border, shift=self.shift)

    @property
    def period(self) -> tuple[int, int]:
        """The size of the window."""
        return self.window_size
