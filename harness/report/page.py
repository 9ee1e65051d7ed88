"""A self-contained HTML page: sections of Markdown, with figures."""

from collections.abc import Sequence
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

from harness.report.figures.figure import to_svg
from harness.report.markdown import Section
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
thead:not(:has(th:not(:empty))) { display: none; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; }
footer { color: #555; font-size: 0.85rem; }
"""


MAX_CELL_LENGTH = 24
"""A column with a text of more characters is broken into lines."""


def to_page(title: str, sections: Sequence[Section], *, footer: str = "") -> str:
    """The whole page; `footer` is Markdown too."""
    body = "\n".join(_to_section(section) for section in sections)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape_html(title)}</title>\n'
        f"<style>{CSS}</style>\n</head>\n<body>\n<h1>{escape_html(title)}</h1>\n{body}\n"
        f"<footer>{render(footer)}</footer>\n</body>\n</html>\n"
    )


def _to_section(section: Section) -> str:
    figures = "\n".join(f"<figure>{to_svg(figure)}</figure>" for figure in section.figures)
    return f"<section>\n<h2>{escape_html(section.title)}</h2>\n{render(section.markdown)}\n{figures}\n</section>"


def render(markdown: str) -> str:
    """Convert Markdown to HTML; HTML in it is escaped, tables can be scrolled, and columns of long texts are broken."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("table_open", lambda *_: '<div class="grid"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    tokens = parser.parse(markdown)
    _mark_long_columns(tokens)
    return str(parser.renderer.render(tokens, parser.options, {})).rstrip()


def _mark_long_columns(tokens: Sequence[Token]) -> None:
    """Set the class `text` for all cells of columns with long texts."""
    columns: list[list[tuple[Token, int]]] = []
    number = 0
    for token, content in pairwise(tokens):
        if token.type == "table_open":
            columns = []
        elif token.type == "tr_open":
            number = 0
        elif token.type == "td_open":
            if number == len(columns):
                columns.append([])
            columns[number].append((token, sum(len(child.content) for child in content.children or ())))
            number += 1
        elif token.type == "tbody_close":
            for column in columns:
                if max(length for _, length in column) > MAX_CELL_LENGTH:
                    for cell, _ in column:
                        cell.attrSet("class", "text")
