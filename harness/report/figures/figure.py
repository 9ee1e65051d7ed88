"""The style of every figure, and how figures are written as PNG and SVG."""

from collections.abc import Callable
from functools import wraps
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report.summary import name_recipe
from harness.spec import ExperimentSpec
from harness.text import count_noun, escape_figure

P = ParamSpec("P")

STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.alpha": 0.3,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "elsa-ablation",
}
"""Matplotlib's settings; SVG contains text as text, and its ids are reproducible."""

COLORS = ("#1b6ca8", "#c44e52", "#4c9f70", "#8b5fbf", "#d08c2e", "#555555", "#2aa6a6", "#b8578a", "#7a6a4f")
"""Colors of unordered things."""

GRAY = "#8a8a8a"

LINE_LENGTH = 30
"""Maximal length of a line in characters."""

TITLE_LENGTH = 60
"""Maximal length of a panel's title in characters: a longer one would leave no room for the panel."""


def make_figure(width: float = 6.4, height: float = 4.0) -> Figure:
    """An empty figure in the common style; sides are in inches."""
    with mpl.rc_context(STYLE):
        return Figure(figsize=(width, height))


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorate a drawing function to use the common style; matplotlib reads settings when axes and texts are made."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def to_short_lines(text: str) -> str:
    """Break a long label into lines, between words and at each plus."""
    label = escape_figure(text)
    return label if len(label) <= LINE_LENGTH else fill(label.replace("+", " + "), LINE_LENGTH)


def name_source(spec: ExperimentSpec) -> str:
    """Where measured values come from, as the title of a panel; many overrides are counted, the page lists them."""
    title = f"recipe {name_recipe(spec)}"
    if len(title) > TITLE_LENGTH:
        title = f"recipe {spec.recipe.name} with {count_noun(len(spec.overrides), 'override')}"
    return escape_figure(title)


def mark_empty(panel: Axes, text: str) -> None:
    """Write a text into a panel without data."""
    panel.text(0.5, 0.5, text, transform=panel.transAxes, ha="center", color=GRAY, style="italic")
    panel.set_xticks([])
    panel.set_yticks([])


def add_note(figure: Figure, text: str) -> None:
    """Add a sentence below all panels, unless `text` is empty."""
    if text:
        figure.supxlabel(escape_figure(text), x=0.01, ha="left", fontsize=8, style="italic", color=GRAY, wrap=True)


def to_svg(figure: Figure) -> str:
    """The figure as one `<svg>` element for an HTML page."""
    with mpl.rc_context(STYLE), BytesIO() as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
        text = file.getvalue().decode()
    return text[text.index("<svg") :]


def write_figure(figure: Figure, folder: Path, stem: str) -> tuple[Path, Path]:
    """Write `stem`.png and `stem`.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{stem}.png", folder / f"{stem}.svg"
    with mpl.rc_context(STYLE):
        figure.savefig(png, dpi=150)
        figure.savefig(svg, metadata={"Date": None})
    return png, svg
