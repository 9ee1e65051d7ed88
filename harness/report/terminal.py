"""The tables as plain lines for a terminal."""

from tabulate import tabulate

from harness.table.column import Grid
from harness.table.results import Results
from harness.text import to_line


def to_text(results: Results) -> str:
    """All tables, narrow enough for a terminal; the files have all columns."""
    grids = [results.grid, *(table.grid for table in results.findings.tables)]
    return "\n\n".join(map(_to_narrow, grids))


def _to_narrow(grid: Grid) -> str:
    kept = [column.on_terminal for column in grid.columns]
    lines = [[to_line(cell.text) for cell, keep in zip(line, kept, strict=True) if keep] for line in grid.lines]
    titles = [to_line(title) for title, keep in zip(grid.titles, kept, strict=True) if keep]
    return tabulate(lines, headers=titles, tablefmt="simple", disable_numparse=True)
