"""Figure `heads`: accuracy by number of heads; rows that differ in heads alone form one line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.cell import Cell
from harness.plan import Plan, PlannedRow
from harness.report.figures.figure import COLORS, GRAY, add_note, make_figure, name_source, styled, to_short_lines
from harness.report.figures.gaps import explain_gap, list_gaps
from harness.table.column import Row
from harness.table.columns.scores import ScoreColumns
from harness.table.results import Results
from harness.text import escape_figure

MARKERS = "os^Dv*"

MAX_FEET = 15
"""Number of lines with their own height for missing numbers."""


@dataclass(frozen=True)
class Line:
    """Rows of one layer by their heads, the fewest first; `place` counts the lines from 0."""

    name: str
    place: int
    rows: tuple[PlannedRow, ...]

    @property
    def color(self) -> str:
        """The color of the line; colors repeat if there are too many lines."""
        return COLORS[self.place % len(COLORS)]

    @property
    def marker(self) -> str:
        """The marker of the line."""
        return MARKERS[self.place % len(MARKERS)]


@styled
def draw_heads(results: Results) -> Figure:
    """Draw measured numbers and, beside them, the paper's; a row without a number is a cross at the bottom."""
    lines, rows = _make_lines(results.plan.rows), {row["row"]: row for row in results.rows}
    heads = _name_heads(results.plan)
    score = results.score
    sources = {score.mean: name_source(results.plan.spec)}
    if any(pd.notna(row[score.published]) for row in rows.values()):
        sources[score.published] = "the paper, on its own data and schedule"
    figure = make_figure(1.8 + 3.8 * len(sources), max(3.9, 0.5 * len(lines)))
    panels = figure.subplots(1, len(sources), squeeze=False)[0]
    for panel, (column, title) in zip(panels, sources.items(), strict=True):
        panel.set_title(title)
        panel.set_xlabel("heads")
        panel.set_xticks(range(len(heads)), list(heads.values()))
        for line in lines:
            _draw_line(
                panel, line, {[*heads].index(row.cell.num_heads): rows[row.name] for row in line.rows}, column, score
            )
        panel.margins(0.1, 0.12)
        if all(pd.isna(rows[row.name][column]) for line in lines for row in line.rows):
            panel.set_ylim(0, results.measure.ceiling)
    panels[0].set_ylabel(escape_figure(results.measure.label))
    panels[0].set_xlabel("heads, and how many these are in each stage")
    panels[0].set_xticks(
        range(len(heads)), [f"{name}\n{', '.join(map(str, numbers))}" for numbers, name in heads.items()]
    )
    add_note(figure, list_gaps(results.rows))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _name_heads(plan: Plan) -> dict[tuple[int, ...], str]:
    """The numbers of heads in increasing order, as the rows state them (`1x`)."""
    stated = {name: row.heads or plan.spec.cell.heads or "1x" for name, row in plan.stated.items()}
    rows = sorted((row for row in plan.rows if not row.is_floor), key=lambda row: sum(row.cell.num_heads))
    names: dict[tuple[int, ...], str] = {}
    for row in rows:
        names.setdefault(row.cell.num_heads, str(stated.get(row.name, list(row.cell.num_heads))))
    return names


def _make_lines(rows: Iterable[PlannedRow]) -> list[Line]:
    groups: dict[Cell, list[PlannedRow]] = {}
    for row in rows:
        if not (row.is_floor or row.is_placebo):
            groups.setdefault(replace(row.cell, num_heads=()), []).append(row)
    ordered = [sorted(group, key=lambda row: sum(row.cell.num_heads)) for group in groups.values()]
    return [Line(_name_line(group), place, tuple(group)) for place, group in enumerate(ordered)]


def _name_line(group: Sequence[PlannedRow]) -> str:
    """The common beginning of the names of its rows: `LSA` of `LSA, 1x` and `LSA, 2x`."""
    names = [row.name for row in group]
    columns = zip(*(name.split() for name in names), strict=False)
    shared = takewhile(lambda words: len(set(words)) == 1, columns)
    return " ".join(words[0] for words in shared).rstrip(" ,:-") or names[0]


def _draw_line(panel: Axes, line: Line, rows: dict[int, Row], column: str, score: ScoreColumns) -> None:
    known = {place: row[column] for place, row in rows.items() if pd.notna(row[column])}
    label = to_short_lines(line.name)
    panel.plot(list(known), list(known.values()), f"{line.marker}-", color=line.color, label=label, gid="line")
    for place, row in rows.items():
        if place in known and column == score.mean and pd.notna(row[score.std]):
            ends = known[place] - row[score.std], known[place] + row[score.std]
            panel.plot([place, place], ends, color=line.color, linewidth=1, alpha=0.6, gid="spread")
        if place not in known:
            _draw_gap(panel, line, place, explain_gap(row) if column == score.mean else row["expected"])


def _draw_gap(panel: Axes, line: Line, place: int, reason: str) -> None:
    """Draw a cross for a missing number; each line has its own height, so that crosses do not overlap."""
    if not reason:
        return
    foot, axes = 0.03 + 0.06 * (line.place % MAX_FEET), panel.get_xaxis_transform()
    panel.plot([place], [foot], "x", color=line.color, transform=axes, gid="gap", clip_on=False)
    side, shift = ("left", 0.08) if place == 0 else ("right", -0.08)
    style: dict[str, Any] = {"fontsize": 8, "color": GRAY, "style": "italic", "ha": side, "va": "center"}
    panel.text(place + shift, foot, escape_figure(reason), transform=axes, **style)
