"""What is known of a stage by its shapes. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StageInfo:
    """How the operator of one stage meets its map; sizes in pixels of the feature map, (rows, columns).

    Attributes:
        stage: 1-based.
        neighborhood: the level.
        size: of the window or of the sliding kernel.
        shifts: by how much the windows move, one entry for each different block.
        inside: the part of the taps that are counted and lie inside the map, one entry for each of `shifts`.
        is_global: every query sees the whole map, so that nothing about the neighborhood is local.
    """

    stage: int
    map_size: tuple[int, int]
    neighborhood: str
    size: tuple[int, int]
    shifts: tuple[tuple[int, int], ...]
    inside: tuple[float, ...]
    is_global: bool
