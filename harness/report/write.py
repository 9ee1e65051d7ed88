"""Writes a table's files, its HTML page and the figures that the experiment asks for."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from harness.files import write_atomically
from harness.report.figures.curve import draw_curves
from harness.report.figures.delta import draw_deltas
from harness.report.figures.figure import write_figure
from harness.report.figures.heads import draw_heads
from harness.report.figures.size import draw_sizes
from harness.report.files import find_folder, name_plot
from harness.report.markdown import Section, list_explanations, list_tables
from harness.report.page import to_page
from harness.report.summary import name_figure, to_title
from harness.report.table import write_table
from harness.spec import Plot
from harness.table.results import Results

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
    return (*write_table(results, folder), page, *plots)


def to_html(results: Results) -> str:
    """The content of the Markdown file, with the figures of every table and of the experiment."""
    spec = results.plan.spec
    plots = dict.fromkeys((*spec.plots, *ON_EVERY_PAGE))
    figures = (Section(name_figure(spec, plot), figures=(PLOTS[plot](results),)) for plot in plots)
    return to_page(to_title(spec), [*list_tables(results), *figures, *list_explanations(results)])
