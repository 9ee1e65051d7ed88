"""How every figure is drawn and kept: as a picture for documents and as one for the web, the same each time."""

from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "elsa-ablation",
}
"""Matplotlib's settings; text stays text and ids do not change from one drawing to the next."""


def make_figure(width: float = 6.4, height: float = 4.0) -> Figure:
    """An empty figure in the house's style; sides in inches."""
    with mpl.rc_context(STYLE):
        return Figure(figsize=(width, height))


def to_svg(figure: Figure) -> str:
    """The figure as one `<svg>` element, to stand within a page."""
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
