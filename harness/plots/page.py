"""One HTML page with figures in it, that needs no other file and no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from matplotlib.figure import Figure

from harness.plots.figure import to_svg

CSS = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: 0.9rem; display: block; overflow-x: auto; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
td { font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { position: sticky; left: 0; background: #fff; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; }
footer, .note { color: #555; font-size: 0.85rem; }
"""


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
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{CSS}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n<footer>{footer}</footer>\n"
        "</body>\n</html>\n"
    )


def _to_section(section: Section) -> str:
    figures = "\n".join(f"<figure>{to_svg(figure)}</figure>" for figure in section.figures)
    return f"<section>\n<h2>{escape(section.title)}</h2>\n{section.html}\n{figures}\n</section>"
