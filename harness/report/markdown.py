"""The table in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from tabulate import tabulate

from harness.report.files import name_plot
from harness.report.summary import name_figure, to_notes, to_origin, to_summary, to_title
from harness.table.column import Emphasis, Grid, Text
from harness.table.results import Results
from harness.text import escape_cell, escape_markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EMPHASIS = {Emphasis.NONE: "{}", Emphasis.PROVEN: "**{}**", Emphasis.TITLE: "*{}*"}


def to_markdown(results: Results) -> str:
    """Title, summary, table, plots, claims, effects, notes and origin."""
    spec = results.plan.spec
    plots = (f"![{name_figure(spec, plot)}]({quote(name_plot(spec, plot))}.png)" for plot in spec.plots)
    table, *findings = list_tables(results)
    further = [*findings, *list_explanations(results)]
    parts = [
        f"# {escape_markdown(to_title(spec))}",
        table.markdown,
        *plots,
        *(f"## {section.title}\n\n{section.markdown}" for section in further),
    ]
    return "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class Section:
    """A part of a report: text in Markdown, with external texts escaped, and figures below it."""

    title: str
    markdown: str = ""
    figures: Sequence[Figure] = ()


def list_tables(results: Results) -> Iterator[Section]:
    """The table with its summary, then claims and effects."""
    yield Section("Table", f"{to_summary(results)}\n\n{to_markdown_grid(results.grid)}")
    yield from (Section(table.title, to_markdown_grid(table.grid)) for table in results.findings.tables)


def list_explanations(results: Results) -> Iterator[Section]:
    """The notes on the tables, and their origin."""
    yield Section("How to read it", "\n".join(f"* {note}" for note in to_notes(results)))
    yield Section("Where it comes from", to_markdown_facts(to_origin(results)))


def to_markdown_grid(grid: Grid) -> str:
    """A table in Markdown, with emphasis."""
    return to_markdown_table(grid.titles, grid.lines)


def to_markdown_table(titles: Sequence[str], lines: Iterable[Iterable[Text]]) -> str:
    """A table in Markdown from its titles and cells."""
    cells = [[to_markdown_cell(cell) for cell in line] for line in lines]
    headers = [to_markdown_cell(Text(title)) for title in titles]
    return tabulate(cells, headers=headers, tablefmt="github", disable_numparse=True)


def to_markdown_cell(cell: Text) -> str:
    """A cell of a table in Markdown."""
    return escape_cell(EMPHASIS[cell.emphasis].format(escape_markdown(cell.text)))


def to_markdown_facts(facts: Mapping[str, str]) -> str:
    """A table of two columns without titles; the facts are Markdown."""
    rows = [(name, escape_cell(fact)) for name, fact in facts.items()]
    return tabulate(rows, headers=["", ""], tablefmt="github", disable_numparse=True)
