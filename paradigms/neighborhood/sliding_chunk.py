"""Sliding chunks (Θ): a query sees its own chunk of the map and the eight around it."""

from dataclasses import dataclass

from paradigms.config import AttentionConfig
from paradigms.facts import to_pair
from paradigms.functional import Geometry


@dataclass(frozen=True)
class SlidingChunk:
    """Vision Longformer's sliding chunks (arXiv:2103.15358), without its global tokens.

    The map is cut into chunks of `chunk_size` w from its first pixel on. A query sees the whole 3w x 3w pixels of its
    chunk and the eight around it; if `exact`, of these the (2w + 1) x (2w + 1) around itself alone: a sliding window
    that reaches w pixels.

    arXiv:2112.12786, Table 3, has Net7-N by unfolding and, 0.4 points lower, by sliding chunks; over how many pixels,
    and whether exact, is not printed. Our `net7_n` sees 7x7 pixels, which are w = 3, the default, if exact; whole
    chunks are 9x9 then.

    Where the map is no multiple of the chunk, or smaller, it is filled up at its end. What is filled up and the chunks
    beyond the map's edges are outside, under the rule `border`. Their code masks them (`mask`, the default here).
    Offsets between a query and what it sees are 4w - 1 along each axis, 2w + 1 if exact.

    Read: `slidingchunk_2d.py`, `longformer2d.py` and `Implementation.md` of github.com/microsoft/vision-longformer.
    There `exact` is 1 (ours: true), 0 (false, its default) or -1 (chunks around the map's edges, not offered). It
    computes all 9w² products and masks some of them where it is exact; here that is `sliding_window` itself, in cost
    too. Its bias table has (4w - 1)² rows in both modes, of which the exact one reads (2w + 1)².
    """

    chunk_size: tuple[int, int]
    exact: bool
    border: str

    @classmethod
    def from_config(cls, config: AttentionConfig) -> "SlidingChunk":
        """Read the fields of this level."""
        return cls(to_pair(config.chunk_size), config.exact, config.outside_rule)

    @property
    def geometry(self) -> Geometry:
        """Chunks; if exact, an area that moves with the query."""
        rows, columns = self.chunk_size
        if self.exact:
            return Geometry("sliding", (2 * rows + 1, 2 * columns + 1), border=self.border)
        return Geometry("chunk", (3 * rows, 3 * columns), border=self.border)

    @property
    def period(self) -> tuple[int, int]:
        """The chunk; one pixel if exact."""
        return (1, 1) if self.exact else self.chunk_size
