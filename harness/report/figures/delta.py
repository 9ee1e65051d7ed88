"""Figure `delta`: each row's difference to the baseline with its 95 % interval, seeds and the paper's value."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.report.figures.figure import COLORS, GRAY, make_figure, styled
from harness.report.figures.gaps import explain_gap
from harness.statistics import Verdict
from harness.table.column import Row
from harness.table.results import Results
from harness.table.selection import is_comparable
from harness.text import escape_figure

VERDICT_COLORS = {
    Verdict.BETTER: COLORS[0],
    Verdict.WORSE: COLORS[1],
    Verdict.EQUIVALENT: COLORS[2],
    Verdict.UNRESOLVED: GRAY,
}

ROW_HEIGHT, CHARACTER_WIDTH = 0.36, 0.07
"""Inches."""

SEED_SHIFT = 0.24
"""Distance of the seeds below the interval of their row, in rows."""

Limits = tuple[float, float]


@styled
def draw_deltas(results: Results) -> Figure:
    """Draw one line per row, in the order of the table; the baseline is the line at zero."""
    rows = [row for row in results.rows if row["row"] != results.plan.spec.baseline]
    longest = max((len(row["row"]) for row in rows), default=0)
    figure = make_figure(6.0 + CHARACTER_WIDTH * longest, 1.4 + ROW_HEIGHT * len(rows))
    panel = figure.subplots()
    differences = [_get_differences(results, row) for row in rows]
    limits = _choose_limits(rows, differences)
    panel.axvline(0, color="#222222", linewidth=1)
    for height, (row, points) in enumerate(zip(rows, differences, strict=True)):
        _draw_row(panel, height, row, points, limits)
    margin = 0.04 * (limits[1] - limits[0])
    panel.set_xlim(limits[0] - margin, limits[1] + margin)
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.set_yticks(range(len(rows)), [escape_figure(row["row"]) for row in rows])
    panel.tick_params(axis="y", length=0)
    panel.grid(visible=False, axis="y")
    panel.set_xlabel(escape_figure(f"{results.measure.difference} above {results.plan.spec.baseline}"))
    figure.legend(handles=_make_legend(rows), loc="outside upper right", ncols=5)
    return figure


def _get_differences(results: Results, row: Row) -> list[float]:
    """The differences by seed, for seeds that both rows have and that can be compared."""
    mine, base = (results.replicates.get(name) for name in (row["row"], results.plan.spec.baseline))
    if mine is None or base is None or not is_comparable(mine, base):
        return []
    return [mine.scores[seed] - base.scores[seed] for seed in sorted(mine.scores.keys() & base.scores.keys())]


def _choose_limits(rows: list[Row], differences: list[list[float]]) -> Limits:
    """Limits that contain all points, and intervals only as far as the points stay distinguishable."""
    points = [0.0, *(point for group in differences for point in group)]
    points += [row["published_delta"] for row in rows if pd.notna(row["published_delta"])]
    low, high = min(points), max(points)
    span = high - low or 1.0
    ends = [end for row in rows for end in (row["delta_low"], row["delta_high"]) if pd.notna(end)]
    lowest, highest = max(min([low, *ends]), low - span), min(max([high, *ends]), high + span)
    return (lowest, highest) if lowest < highest else (-1.0, 1.0)


def _draw_row(panel: Axes, height: int, row: Row, points: list[float], limits: Limits) -> None:
    color = VERDICT_COLORS.get(row["verdict"], GRAY)
    if pd.notna(row["delta_low"]):
        _draw_interval(panel, height, (row["delta_low"], row["delta_high"]), color, limits)
    if points:
        panel.plot(points, [height + SEED_SHIFT] * len(points), "o", color=color, markersize=3.5, alpha=0.6, gid="seed")
        panel.plot([row["delta"]], [height], "o", color=color, markersize=7, gid="mean", zorder=3)
    gap = escape_figure(explain_gap(row) or ("" if points else "no baseline to compare with"))
    panel.text(1.02, height, gap, transform=panel.get_yaxis_transform(), va="center", style="italic", color=GRAY)
    if pd.notna(row["published_delta"]):
        panel.plot([row["published_delta"]], [height], "D", color="#222222", markerfacecolor="none", gid="published")


def _draw_interval(panel: Axes, height: int, ends: Limits, color: str, limits: Limits) -> None:
    """Draw an interval; an arrow shows that it exceeds the limits."""
    shown = max(ends[0], limits[0]), min(ends[1], limits[1])
    panel.plot(shown, [height, height], color=color, linewidth=2.2, solid_capstyle="butt", gid="interval")
    for end, at, marker in zip(ends, shown, "<>", strict=True):
        panel.plot([at], [height], "|" if at == end else marker, color=color, markersize=8, clip_on=False)


def _make_legend(rows: list[Row]) -> list[Line2D]:
    present = [verdict for verdict in VERDICT_COLORS if verdict in {row["verdict"] for row in rows}]
    handles = [Line2D([], [], color=VERDICT_COLORS[verdict], marker="o", label=verdict.value) for verdict in present]
    if present:
        handles.append(Line2D([], [], color=GRAY, marker="o", markersize=3.5, linestyle="", label="a seed"))
    if any(pd.notna(row["published_delta"]) for row in rows):
        handles.append(
            Line2D([], [], color="#222222", marker="D", markerfacecolor="none", linestyle="", label="the paper's")
        )
    return handles
