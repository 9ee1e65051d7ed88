"""Writes a table's files, its HTML page and the figures that the experiment asks for."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from harness.plots.curve import draw_curves
from harness.plots.delta import draw_deltas
from harness.plots.figure import write_figure
from harness.plots.heads import draw_heads
from harness.plots.page import Section, to_grid, to_inline, to_page
from harness.plots.results import Results
from harness.plots.size import draw_sizes
from harness.spec import Plot
from harness.table.display import emphasize, to_display
from harness.table.report import (
    find_folder,
    name_figure,
    name_plot,
    to_displays,
    to_notes,
    to_origin,
    to_summary,
    to_title,
    write_atomically,
    write_table,
)
from harness.text import escape_html

PLOTS: dict[Plot, Callable[[Results], Figure]] = {
    "delta": draw_deltas,
    "curve": draw_curves,
    "size": draw_sizes,
    "heads": draw_heads,
}

ON_EVERY_PAGE: tuple[Plot, ...] = ("delta", "curve", "size")


def write_report(results: Results, folder: Path) -> tuple[Path, ...]:
    """Write the table, its page and the plots that the experiment asks for below `folder`; returns the paths."""
    spec = results.plan.spec
    mine = find_folder(spec, folder)
    page = mine / f"{spec.name}.html"
    write_atomically(page, to_html(results))
    plots = (path for plot in spec.plots for path in write_figure(PLOTS[plot](results), mine, name_plot(spec, plot)))
    return (*write_table(results.frame, results.plan, folder, results.findings), page, *plots)


def to_html(results: Results) -> str:
    """What stands in Markdown, and the figures of every table beside those that the experiment asks for."""
    plan, frame = results.plan, results.frame
    plots = dict.fromkeys((*plan.spec.plots, *ON_EVERY_PAGE))
    sections = [
        Section("Table", f"<p>{to_inline(to_summary(frame, plan))}</p>\n{_to_grid(to_display(frame, plan.spec))}"),
        *(Section(title, _to_grid(table)) for title, table in to_displays(results.findings, results.plan.spec).items()),
        *(Section(name_figure(results.plan.spec, plot), figures=[PLOTS[plot](results)]) for plot in plots),
        Section("How to read it", _to_list(to_notes(frame, plan, results.findings))),
        Section("Where it comes from", _to_facts(to_origin(frame, plan))),
    ]
    return to_page(to_title(plan.spec), sections)


def _to_grid(display: pd.DataFrame) -> str:
    return to_grid(display, emphasize=partial(emphasize, proven="<strong>{}</strong>", title="<em>{}</em>"))


def _to_list(notes: Iterable[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{to_inline(note)}</li>" for note in notes) + "\n</ul>"


def _to_facts(facts: Mapping[str, str]) -> str:
    rows = (f"<tr><th>{escape_html(name)}</th><td>{to_inline(fact)}</td></tr>" for name, fact in facts.items())
    return "<table>\n" + "\n".join(rows) + "\n</table>"
