"""Estimates the duration of runs from runs that have been measured."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from harness.cell import Cell


@dataclass(frozen=True)
class Estimate:
    """Seconds of one run; `is_measured` if the same cell was trained before, not only a similar one."""

    seconds: float
    is_measured: bool


class Estimator:
    """Estimates the duration of cells.

    For a cell that was never trained, the estimate is that of the cells with the same data and training that share most
    factors with it.

    Args:
        cells: all cells that may be estimated or used for estimates.
        measured: seconds of finished runs, by cell id.
    """

    def __init__(self, cells: Iterable[Cell], measured: Mapping[str, Sequence[float]]) -> None:
        self._cells = {cell.id: cell for cell in cells if cell.id in measured}
        self._seconds = {cell_id: median(measured[cell_id]) for cell_id in self._cells}

    def estimate(self, cell: Cell) -> Estimate | None:
        """The estimate for a cell; None if no similar cell was trained."""
        if cell.id in self._seconds:
            return Estimate(self._seconds[cell.id], is_measured=True)
        comparable = [c for c in self._cells.values() if (c.data, c.training) == (cell.data, cell.training)]
        likeness = {other.id: _count_shared(cell, other) for other in comparable}
        if not likeness:
            return None
        most = max(likeness.values())
        alike = [self._seconds[cell_id] for cell_id, shared in likeness.items() if shared == most]
        return Estimate(median(alike), is_measured=False)


def _count_shared(cell: Cell, other: Cell) -> int:
    factors = other.factors()
    return sum(level == factors[name] for name, level in cell.factors().items())


def to_duration(seconds: float) -> str:
    """Format a rough duration: `40 s`, `12 min`, `3.5 h`, `2.1 d`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} d"
