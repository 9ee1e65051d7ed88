"""The room of neighborhoods: which keys a query sees (Φ of Eq. 4, arXiv:2112.12786)."""

from dataclasses import dataclass

from paradigms.config import AttentionConfig, to_pair
from paradigms.functional import Geometry


@dataclass(frozen=True)
class LocalWindow:
    """Ω: the map is cut into windows, and a query sees its own (arXiv:2103.14030), moved by `shift` in a shifted block.

    Where the map is no multiple of the window it is filled up at its end, under the rule `border`.
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
        """What kernels need to know."""
        return Geometry("window", self.window_size, border=self.border, shift=self.shift)

    @property
    def period(self) -> tuple[int, int] | None:
        """Moving the input by so many pixels moves the output alike, away from the border."""
        return self.window_size


@dataclass(frozen=True)
class SlidingWindow:
    """Θ: the area centred on the query, one offset a tap.

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
        """What kernels need to know."""
        return Geometry("sliding", self.kernel_size, dilation=self.dilation, border=self.border)

    @property
    def period(self) -> tuple[int, int] | None:
        """Moving the input by so many pixels moves the output alike, away from the border."""
        return (1, 1)


NEIGHBORHOODS: dict[str, type[LocalWindow | SlidingWindow]] = {
    "local_window": LocalWindow,
    "sliding_window": SlidingWindow,
}
