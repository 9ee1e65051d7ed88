"""Figure `curve`: validation accuracy by epoch, the mean of each row and its seeds, beside the paper's."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.measure import Measure
from harness.record import Record, RunStatus
from harness.report.figures.figure import COLORS, GRAY, make_figure, mark_empty, name_source, styled, to_short_lines
from harness.report.figures.gaps import name_with_gap
from harness.statistics import average_curves
from harness.table.column import Row
from harness.table.results import Results
from harness.table.selection import Replicates
from harness.text import escape_figure

FLOOR_STYLES = ("--", "-.")

LINE_HEIGHT = 0.19
"""Height of a line of the legend in inches."""

LIGHT = "#c4c4c4"
"""The color of rows without a color and a name of their own."""


@styled
def draw_curves(results: Results) -> Figure:
    """Draw a panel of measured curves and, if the paper prints curves, one of those (other data and schedules)."""
    published = {name: row.curve for name, row in results.plan.spec.published.items() if row.curve}
    figure = make_figure(9.6 if published else 7.2, 4.2)
    panels = figure.subplots(1, 2 if published else 1, squeeze=False)[0]
    rows = [row for row in results.rows if row["row"] in results.replicates]
    colors = _choose_colors(rows, results)
    for row in sorted(rows, key=lambda row: row["row"] in colors):
        _draw_row(panels[0], row, results.replicates[row["row"]], colors.get(row["row"]))
    for row, style in zip(results.floors, FLOOR_STYLES, strict=False):
        _draw_row(panels[0], row, results.replicates[row["row"]], GRAY, style)
    _settle_epochs(panels[0], [len(line.get_xdata()) for line in panels[0].lines])
    panels[0].set_ylabel(escape_figure(f"validation {results.measure.label}"))
    panels[0].set_title(name_source(results.plan.spec))
    if published:
        _draw_published(panels[1], published, colors, results.measure.label)
    for panel in panels:
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _add_legend(figure, panels[0], len(rows) - len(colors))
    return figure


def _choose_colors(rows: Sequence[Row], results: Results) -> dict[str, str]:
    """Choose the rows with a color and a name: the baseline and the best others, as many as there are colors."""
    ranked = sorted(rows, key=lambda row: _rank(row, results))
    named = {row["row"] for row in ranked[: len(COLORS)]}
    return dict(zip((row["row"] for row in rows if row["row"] in named), COLORS, strict=False))


def _rank(row: Row, results: Results) -> tuple[bool, float]:
    score = row[results.score.val_mean]
    return row["row"] != results.plan.spec.baseline, math.inf if math.isnan(score) else -results.measure.sign * score


def _draw_row(panel: Axes, row: Row, replicates: Replicates, color: str | None, style: str = "-") -> None:
    """Draw the mean over measured seeds, and every seed of named rows; a bad end is a dotted line and a cross."""
    for record in replicates.records.values() if color else ():
        _draw_seed(panel, record, replicates.measure, color or LIGHT)
    mean = average_curves([*_get_curve(record, replicates.measure).values()] for record in replicates.ok)
    label = None if color is None else to_short_lines(name_with_gap(row))
    width = 1.2 if row["is_floor"] or color is None else 2
    marker = "o" if len(mean) == 1 else None
    line: dict[str, Any] = {"linestyle": style, "linewidth": width, "marker": marker, "color": color or LIGHT}
    panel.plot(range(1, len(mean) + 1), mean, label=label, gid="mean", zorder=3, **line)


def _settle_epochs(panel: Axes, lengths: Sequence[int]) -> None:
    """Set the limits of the axis of epochs; a single epoch gets a margin."""
    if max(lengths, default=0) == 0:
        mark_empty(panel, "nothing to show")
    elif max(lengths) == 1:
        panel.set_xlim(0, 2)


def _draw_seed(panel: Axes, record: Record, measure: Measure, color: str) -> None:
    curve = _get_curve(record, measure)
    bad = record.status != RunStatus.OK
    style = ":" if bad else "-"
    marker = "." if len(curve) == 1 else None
    panel.plot([*curve], [*curve.values()], style, marker=marker, color=color, linewidth=0.8, alpha=0.6, gid="seed")
    finite = [epoch for epoch, score in curve.items() if math.isfinite(score)]
    if bad and finite:
        panel.plot(finite[-1:], [curve[finite[-1]]], "x", color=color, markersize=7, gid="bad end", zorder=4)


def _get_curve(record: Record, measure: Measure) -> dict[int, float]:
    """The curve of a record by epoch, without values that are not finite."""
    points = {epoch.epoch: epoch.metrics.get(measure.val, math.nan) for epoch in record.curve}
    return {epoch: score if math.isfinite(score) else math.nan for epoch, score in points.items()}


def _draw_published(
    panel: Axes, published: Mapping[str, Mapping[int, float]], colors: Mapping[str, str], label: str
) -> None:
    for name, curve in published.items():
        color = colors.get(name, GRAY)
        panel.plot(list(curve), list(curve.values()), "-D", color=color, markersize=4, gid="published")
    panel.set_title("the paper, on its own data and schedule")
    panel.set_ylabel(escape_figure(label))


def _add_legend(figure: Figure, panel: Axes, others: int) -> None:
    handles, labels = panel.get_legend_handles_labels()
    if others > 0:
        handles += panel.plot([], [], color=LIGHT)
        labels.append(f"{others} further rows")
    lines = sum(label.count("\n") + 1 for label in labels)
    figure.set_figheight(max(figure.get_figheight(), 0.5 + LINE_HEIGHT * lines))
    figure.legend(handles, labels, loc="outside right upper")
