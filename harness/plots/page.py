"""A self-contained HTML page with figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from harness.plots.figure import to_svg
from harness.text import escape_html

CSS = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 84rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p, li { max-width: 60rem; }
.grid { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.8rem; }
th, td { padding: 0.3rem 0.35rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
.grid td { font-variant-numeric: tabular-nums; white-space: nowrap; }
.grid td:first-child, .grid td.text { min-width: 8rem; white-space: normal; overflow-wrap: anywhere; }
.grid th:first-child, .grid td:first-child { position: sticky; left: 0; background: #fff; max-width: 20rem; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; }
footer, .note { color: #555; font-size: 0.85rem; }
"""


MAX_CELL_LENGTH = 24
"""Characters; a column with a longer text is broken into lines."""


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        html: what stands under the title, as HTML: whatever comes from outside is escaped already.
        figures: drawn below it, in order.
    """

    title: str
    html: str = ""
    figures: Sequence[Figure] = ()


def to_page(title: str, sections: Sequence[Section], *, footer: str = "") -> str:
    """The whole page; `footer` is HTML too."""
    body = "\n".join(_to_section(section) for section in sections)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape_html(title)}</title>\n'
        f"<style>{CSS}</style>\n</head>\n<body>\n<h1>{escape_html(title)}</h1>\n{body}\n<footer>{footer}</footer>\n"
        "</body>\n</html>\n"
    )


def to_grid(display: pd.DataFrame, *, emphasize: Callable[[pd.DataFrame], pd.DataFrame] = lambda cells: cells) -> str:
    """A table of texts; `emphasize` marks cells that are HTML already. Long texts are broken into lines."""
    cells = emphasize(display.map(escape_html))
    head = "".join(f"<th>{escape_html(title)}</th>" for title in cells.columns)
    is_long = [display[title].str.len().max() > MAX_CELL_LENGTH for title in display.columns]
    opened = ['<td class="text">' if long else "<td>" for long in is_long]
    rows = ("".join(f"{td}{cell}</td>" for td, cell in zip(opened, row, strict=True)) for row in cells.to_numpy())
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="grid"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def to_inline(markdown: str) -> str:
    """A paragraph of Markdown, in which text from outside is escaped; HTML within it is text."""
    return str(MarkdownIt("commonmark", {"html": False}).renderInline(markdown))


def _to_section(section: Section) -> str:
    figures = "\n".join(f"<figure>{to_svg(figure)}</figure>" for figure in section.figures)
    return f"<section>\n<h2>{escape_html(section.title)}</h2>\n{section.html}\n{figures}\n</section>"
