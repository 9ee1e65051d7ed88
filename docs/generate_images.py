"""Writes the figures of README.md: docs/images/equation.svg and docs/images/table1.svg.

    python docs/generate_images.py

The first shows Eq. 4 of arXiv:2112.12786 with its four rooms and all their levels. The second shows the differences of
results/laptop/table1.csv and states the digest of that file, so that a test finds out when it is out of date.
"""

import hashlib
from html import escape
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from paradigms.facts import BORDERS, ROOMS

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
TABLE1 = ROOT / "results" / "laptop" / "table1.csv"

WIDTH, HEIGHT = 960, 396
COLORS = {
    "neighborhood": "#1b6ca8",
    "normalization": "#b8741a",
    "parameterization": "#3c8558",
    "aggregation": "#7d52ad",
}
CARD_WIDTH, CARD_TOP = 218, 176
CENTERS = {"neighborhood": 127, "normalization": 362, "parameterization": 597, "aggregation": 832}
SENTENCES = {
    "neighborhood": ("Φ: which keys", "a query sees"),
    "normalization": ("Norm: how logits", "become weights"),
    "parameterization": ("the logits, here a sum of", "any of four terms"),
    "aggregation": ("Σ and v: how weights", "and values are combined"),
}
TERMS = (
    ("query_key", 330, (("q", "i", ""), ("·", "", ""), ("k", "j", ""))),
    ("query_position", 460, (("q", "i", ""), ("·", "", ""), ("r", "j−i", "k"))),
    ("position_key", 592, (("r", "j−i", "q"), ("·", "", ""), ("k", "j", ""))),
    ("position_bias", 710, (("r", "j−i", "b"),)),
)
"""Each term of Eq. 4 with its center and its symbols: base, index below, index above."""

BASELINE = 78
"""Height of the equation."""


def draw_equation() -> str:
    """Eq. 4, a card for each room, and a line from each card to its part of the equation."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
        "<style>text { font-family: Helvetica, Arial, sans-serif; fill: #222 } .math { font: italic 27px Georgia, "
        "'Times New Roman', serif } .upright { font-style: normal } .index { font-size: 15px } "
        ".code { font: 13px Menlo, Consolas, monospace } .small { font-size: 11px }</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *draw_links(),
        draw_symbols((("f", "i", ""),), 44),
        draw_text("=", 84, BASELINE, "math upright"),
        draw_text("Σ", CENTERS["neighborhood"], BASELINE + 4, "math upright", COLORS["aggregation"], size=40),
        draw_text("j ∈ Φ(i)", CENTERS["neighborhood"], BASELINE + 34, "math index", COLORS["neighborhood"]),
        draw_text("Norm", 208, BASELINE, "math upright", COLORS["normalization"]),
        draw_text("j", 249, BASELINE + 8, "math index", COLORS["normalization"]),
        draw_text("(", 268, BASELINE + 2, "math upright", size=36),
        *draw_terms(),
        draw_text(")", 768, BASELINE + 2, "math upright", size=36),
        draw_symbols((("v", "j", ""),), CENTERS["aggregation"], COLORS["aggregation"]),
        *(part for room in CENTERS for part in draw_card(room)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def draw_text(text: str, x: float, y: float, style: str, color: str = "#222", *, size: int | None = None) -> str:
    """A text centered at `x`."""
    fill = f"fill: {color}" + (f"; font-size: {size}px" if size else "")
    return f'<text x="{x:g}" y="{y:g}" class="{style}" style="{fill}" text-anchor="middle">{escape(text)}</text>'


def draw_symbols(symbols: tuple[tuple[str, str, str], ...], center: float, color: str = "#222") -> str:
    """Symbols with their indices, centered together; widths are those of a serif font of 27 px."""
    widths = [11 if base == "·" else 15 + 7 * max(len(below), len(above)) for base, below, above in symbols]
    x = center - sum(widths) / 2
    drawn = []
    for (base, below, above), width in zip(symbols, widths, strict=True):
        drawn.append(draw_text(base, x + 7, BASELINE, "math", color))
        drawn += [draw_text(below, x + 15 + 3.5 * len(below), BASELINE + 8, "math index", color)] * bool(below)
        drawn += [draw_text(above, x + 20, BASELINE - 12, "math index", color)] * bool(above)
        x += width
    return "\n".join(drawn)


def draw_terms() -> list[str]:
    """The sum of the four terms, each with its name below."""
    color = COLORS["parameterization"]
    drawn = [draw_symbols(symbols, center, color) for _, center, symbols in TERMS]
    drawn += [draw_text(name, center, BASELINE + 34, "code small", color) for name, center, _ in TERMS]
    pluses = [(left[1] + right[1]) / 2 for left, right in pairwise(TERMS)]
    return drawn + [draw_text("+", x, BASELINE, "math upright") for x in pluses]


def draw_links() -> list[str]:
    """From each room's part of the equation to its card."""
    starts = {"neighborhood": 127, "normalization": 208, "parameterization": 520, "aggregation": 832}
    brace = BASELINE + 46
    links = [f"M {TERMS[0][1] - 42} {brace - 4} v 4 H {TERMS[-1][1] + 42} v -4"]
    colors = [COLORS["parameterization"]]
    for room, x in starts.items():
        top = {"normalization": BASELINE + 16, "aggregation": BASELINE + 16, "parameterization": brace}.get(room, brace)
        links.append(f"M {x} {top} V {CARD_TOP - 26} H {CENTERS[room]} V {CARD_TOP}")
        colors.append(COLORS[room])
    return [
        f'<path d="{link}" fill="none" stroke="{color}" stroke-width="1.5"/>'
        for link, color in zip(links, colors, strict=True)
    ]


def draw_card(room: str) -> list[str]:
    """A room: its name, what it decides, and its levels."""
    left, color = CENTERS[room] - CARD_WIDTH / 2, COLORS[room]
    levels = list(ROOMS[room])
    drawn = [
        f'<rect x="{left:g}" y="{CARD_TOP}" width="{CARD_WIDTH}" height="{HEIGHT - CARD_TOP - 12}" rx="8" '
        f'fill="{color}" fill-opacity="0.07" stroke="{color}" stroke-width="1.5"/>',
        draw_text(room, CENTERS[room], CARD_TOP + 27, "title", color, size=17),
        *(
            draw_text(line, CENTERS[room], CARD_TOP + 48 + 17 * n, "text", size=13)
            for n, line in enumerate(SENTENCES[room])
        ),
    ]
    two_columns = len(levels) > 6
    for number, level in enumerate(levels):
        column, line = divmod(number, (len(levels) + 1) // 2) if two_columns else (0, number)
        x = CENTERS[room] + ((column - 0.5) * 112 if two_columns else 0)
        drawn.append(draw_text(level, x, CARD_TOP + 96 + 20 * line, "code small" if two_columns else "code"))
    if room == "neighborhood":
        drawn.append(draw_text("outside the map:", CENTERS[room], HEIGHT - 50, "text", size=13))
        drawn.append(draw_text(" · ".join(BORDERS), CENTERS[room], HEIGHT - 29, "code small"))
    return drawn


def draw_table1() -> Figure:
    """Each row's difference to the baseline with its interval, and the paper's difference."""
    rows = pd.read_csv(TABLE1).query("not is_floor and delta.notna()").reset_index(drop=True)
    colors = {"better": "#1b6ca8", "worse": "#c44e52", "unresolved": "#8a8a8a"}
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    panel = figure.subplots()
    panel.axvline(0, color="#222222", linewidth=1)
    for verdict, group in rows.groupby("verdict", sort=False):
        errors = [group["delta"] - group["delta_low"], group["delta_high"] - group["delta"]]
        style = {"color": colors[str(verdict)], "linestyle": "", "elinewidth": 2.2, "markersize": 7}
        panel.errorbar(group["delta"], group.index, xerr=errors, marker="o", label=f"here: {verdict}", **style)
    panel.plot(rows["published_delta"], rows.index, "D", color="#222222", markerfacecolor="none", label="in the paper")
    panel.set_yticks(rows.index, rows["row"])
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.set_xlabel(f"points of top-1 above Swin-T: mean and 95 % interval of {rows['n'].max()} seeds")
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def write_images() -> None:
    """Write both figures."""
    (IMAGES / "equation.svg").write_text(draw_equation(), encoding="utf-8")
    digest = hashlib.sha256(TABLE1.read_bytes()).hexdigest()
    with mpl.rc_context({"svg.hashsalt": "elsa-ablation", "font.size": 10}):
        draw_table1().savefig(IMAGES / "table1.svg", metadata={"Date": None, "Source": f"table1.csv sha256 {digest}"})


if __name__ == "__main__":
    write_images()
