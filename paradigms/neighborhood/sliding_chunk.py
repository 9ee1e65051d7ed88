"""Sliding chunks (Θ): a query sees its own chunk of the map and the eight around it."""

from dataclasses import dataclass

from paradigms.config import AttentionConfig
from paradigms.facts import to_pair
from paradigms.functional import Geometry


@dataclass(frozen=True)
class SlidingChunk:
    """Vision Longformer's sliding chunks (arXiv:2103.15358), without its global tokens.

    The map is divided into chunks of w x w pixels (`chunk_size`), starting at the first pixel. A query sees its own
    chunk and the eight chunks around it: 3w x 3w pixels. If `exact`, it sees only the (2w + 1) x (2w + 1) pixels around
    itself, which is a sliding window.

    arXiv:2112.12786, Table 3, gives Net7-N by unfolding and by sliding chunks, which is 0.4 points lower. The paper
    does not state the number of pixels, or whether the chunks were exact. Our `net7_n` sees 7x7 pixels. This is w = 3,
    the default, if `exact`; whole chunks are 9x9 then.

    If the map is smaller than a chunk or not a multiple of it, it is padded at its end. Padded pixels and chunks beyond
    the map's edges are outside the map, and the rule `border` applies to them. The released code masks them (`mask`,
    the default here). There are 4w - 1 offsets between a query and its keys along each axis, or 2w + 1 if `exact`.

    Source: `slidingchunk_2d.py`, `longformer2d.py` and `Implementation.md` of github.com/microsoft/vision-longformer.
    There, `exact` is 1 (here: true), 0 (false, its default) or -1 (chunks around the map's edges; not supported here).
    With 1, it computes all 9w² products and masks some of them. Here, it is computed as `sliding_window`, at the same
    cost. Their bias table has (4w - 1)² rows in both modes; the exact mode reads (2w + 1)² of them.
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
