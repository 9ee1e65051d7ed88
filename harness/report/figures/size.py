"""Figure `size`: accuracy against multiply-adds and parameters, measured and as printed in the paper."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator

from harness.report.figures.figure import COLORS, GRAY, add_note, make_figure, mark_empty, name_source, styled
from harness.report.figures.gaps import list_gaps
from harness.report.figures.labels import Point, name_points
from harness.table.column import Row
from harness.table.columns.scores import ScoreColumns
from harness.table.results import Results
from harness.text import escape_figure

WIDE = 20.0
"""Ratio of the largest to the smallest size from which on the axis is logarithmic."""

MAX_NAMED = 20
"""With more points, only the baseline and points on the Pareto front have names."""


@dataclass(frozen=True)
class SizeColumns:
    """The columns of scores and sizes in the frame; sizes are in units of `macs_unit` and `params_unit`."""

    score: str
    macs: str
    params: str
    macs_unit: float = 1.0
    params_unit: float = 1.0


@styled
def draw_sizes(results: Results) -> Figure:
    """Draw two panels side by side and, if the paper prints sizes, its panels below them. Floors are left out."""
    rows, baseline = results.rows, results.plan.spec.baseline
    measured = SizeColumns(results.score.mean, "macs", "params")
    published = SizeColumns(results.score.published, "published_macs", "published_params", 1e9, 1e6)
    sources = {measured: name_source(results.plan.spec)}
    if any(_make_points(rows, published, baseline)):
        sources[published] = "the paper, on its own data and schedule"
    figure = make_figure(9.0, 0.4 + 3.4 * len(sources))
    panels = figure.subplots(len(sources), 2, squeeze=False, sharey="row")
    content = [(source, _make_points(rows, source, baseline)) for source in sources]
    for line, (source, points) in zip(panels, content, strict=True):
        _draw_line(line, points, results.measure.label)
        line[0].set_title(sources[source])
    _draw_spreads(panels[0], rows, results.score)
    add_note(figure, list_gaps(rows))
    for line, (_, points) in zip(panels, content, strict=True):
        for panel, shown in zip(line, points, strict=True):
            named = _choose_named(shown, baseline, results.measure.sign)
            name_points(panel, named, others=[point for point in shown if point not in named])
    return figure


def _make_points(rows: Sequence[Row], source: SizeColumns, baseline: str) -> tuple[list[Point], list[Point]]:
    """The points by multiply-adds and by parameters; rows without one of the numbers are left out."""
    sizes = {source.macs: source.macs_unit, source.params: source.params_unit}
    macs, params = (
        [
            Point(float(row[column]) * unit, row[source.score], row["row"], COLORS[int(row["row"] == baseline)])
            for row in rows
            if pd.notna(row[column]) and pd.notna(row[source.score])
        ]
        for column, unit in sizes.items()
    )
    return macs, params


def _draw_line(panels: Sequence[Axes], points: tuple[list[Point], list[Point]], score: str) -> None:
    for panel, shown, label in zip(panels, points, ("multiply-adds an image", "parameters"), strict=True):
        colors = [point.color for point in shown]
        panel.scatter(
            [point.x for point in shown], [point.y for point in shown], s=30, c=colors, gid="points", zorder=3
        )
        panel.margins(0.2, 0.15)
        panel.set_xlabel(label)
        if _is_wide(shown):
            panel.set_xscale("log")
            panel.minorticks_off()
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 3)) if _is_wide(shown) else MaxNLocator(5))
        panel.xaxis.set_major_formatter(EngFormatter())
        if not shown:
            mark_empty(panel, "nothing to show")
    panels[0].set_ylabel(escape_figure(score))


def _is_wide(points: Sequence[Point]) -> bool:
    """Whether the range of sizes is too large for a linear axis."""
    sizes = [point.x for point in points]
    return bool(sizes) and 0 < WIDE * min(sizes) < max(sizes)


def _draw_spreads(panels: Sequence[Axes], rows: Sequence[Row], score: ScoreColumns) -> None:
    """Draw one standard deviation over seeds, up and down."""
    for panel, column in zip(panels, ("macs", "params"), strict=True):
        for row in rows:
            if pd.notna(row[column]) and pd.notna(row[score.std]):
                ends = row[score.mean] - row[score.std], row[score.mean] + row[score.std]
                panel.plot([int(row[column])] * 2, ends, color=GRAY, linewidth=1, zorder=2, gid="spread")


def _choose_named(points: list[Point], baseline: str, sign: int) -> list[Point]:
    if len(points) <= MAX_NAMED:
        return points
    front = [p for p in points if not any(q.x <= p.x and sign * q.y >= sign * p.y and q != p for q in points)]
    return [point for point in points if point in front or point.name == baseline]
