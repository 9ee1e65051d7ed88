"""Numbers formatted for people: the DataFrame of strings behind Markdown and the terminal."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from harness.plan import ALL
from harness.spec import Column, ExperimentSpec
from harness.statistics import ClaimVerdict, Verdict
from harness.table.findings import DIRECTIONS
from paradigms.config import TERMS

NOTHING = "—"
QUOTED = "†"
CURVE_POINTS = 6
FLOORS_TITLE = "floors:"
TICK = "✓"
TERM_TITLES = dict(zip(TERMS, ("q·k", "q·r", "r·k", "b"), strict=True))
"""Of the columns that say which terms of Eq. 4 a row has."""

UNITS = {"G": 10**9, "M": 10**6, "k": 10**3, "": 1}

PROVEN = (
    *(Verdict.BETTER.value, Verdict.WORSE.value),
    *(ClaimVerdict.REPRODUCED.value, ClaimVerdict.CONTRADICTED.value),
    *(DIRECTIONS[Verdict.BETTER], DIRECTIONS[Verdict.WORSE]),
)

Row = Mapping[str, Any]
Cells = Mapping[str, Callable[[Row], str]]


def to_display(frame: pd.DataFrame, spec: ExperimentSpec) -> pd.DataFrame:
    """The columns that the experiment asks for and the paper's, in one order; a title row goes before the floors."""
    cells = _make_cells(frame, spec)
    rows = to_rows(frame)
    shown = [{title: show(row) for title, show in cells.items()} for row in rows if not row["is_floor"]]
    floors = [{title: show(row) for title, show in cells.items()} for row in rows if row["is_floor"]]
    if floors:
        shown += [{**dict.fromkeys(cells, ""), "row": FLOORS_TITLE}, *floors]
    return pd.DataFrame(shown, columns=list(cells))


def write_size(size: tuple[int, ...]) -> str:
    """Rows and columns: `14x7`."""
    return "x".join(map(str, size))


def emphasize(display: pd.DataFrame, *, proven: str, title: str) -> pd.DataFrame:
    """Emphasis is for what is proven, and for the title of the floors; both are patterns such as `**{}**`."""
    verdicts = {verdict: proven.format(verdict) for verdict in PROVEN}
    return display.replace({"row": {FLOORS_TITLE: title.format(FLOORS_TITLE)}, "verdict": verdicts})


def name_recipe(spec: ExperimentSpec) -> str:
    """Its name with what `--set` changed of the experiment: `imagenet with training.epochs=1`."""
    return " ".join([spec.recipe.name, *(["with", ", ".join(spec.overrides)] if spec.overrides else [])])


def count_noun(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def to_rows(frame: pd.DataFrame) -> list[Row]:
    """The rows of a frame, their values by column."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _make_cells(frame: pd.DataFrame, spec: ExperimentSpec) -> dict[str, Callable[[Row], str]]:
    """Title and content of every column: score, difference, verdict, the paper's, then levels and sizes."""
    groups: dict[Column, Cells] = {
        "top1": {"top-1, %": _show_top1},
        "delta": {
            f"Δ to {spec.baseline} [95 %]": _show_delta,
            "verdict": lambda row: row["verdict"] or NOTHING,
        },
        "parameterization": _make_ticks(frame),
        "normalization": {"normalization": lambda row: row["normalization"] or NOTHING},
        "neighborhood": {"neighborhood": lambda row: row["neighborhood"] or NOTHING},
        "params": {"params": _show_params},
        "macs": {"multiply-adds": lambda row: show_count(row["macs"])},
        "throughput": {"images/s": lambda row: show_number(row["images_per_second"], ",.0f")},
        "curve": {"val top-1 by epoch": lambda row: thin_out(row["val_curve"]) or NOTHING},
    }
    cells: dict[str, Callable[[Row], str]] = {"row": lambda row: row["row"]}
    for column in ("top1", "delta"):
        cells |= groups.pop(column) if column in spec.columns else {}
    if "top1" in spec.columns:
        cells["n"] = _show_replicates
    if frame["published_top1"].notna().any():
        cells["paper"] = lambda row: show_number(row["published_top1"], ".1f") + QUOTED * row["published_quoted"]
        cells["paper Δ"] = lambda row: show_number(row["published_delta"], "+.1f")
    for column, group in groups.items():
        cells |= group if column in spec.columns else {}
    if frame[["published_params", "published_macs"]].notna().any(axis=None):
        cells["paper size"] = _show_published_size
    if frame["published_throughput"].notna().any():
        cells["paper images/s"] = lambda row: show_number(row["published_throughput"], ",.0f")
    if frame["published_curve"].any():
        cells["paper by epoch"] = lambda row: thin_out(row["published_curve"]) or NOTHING
    if "delta" in spec.columns:
        cells["sign-flip p"] = lambda row: show_number(row["sign_flip_p"], ".2f")
    if any(_show_notes(row) for row in to_rows(frame)):
        cells["notes"] = _show_notes
    return cells


def _make_ticks(frame: pd.DataFrame) -> Cells:
    """A narrow column for each term of Eq. 4; one more where some row is parameterized otherwise."""

    def show(term: str) -> Callable[[Row], str]:
        return lambda row: TICK if row[term] == ALL else row[term]

    ticks = {title: show(term) for term, title in TERM_TITLES.items()}
    other = {"other": lambda row: row["other_parameterization"]} if frame["other_parameterization"].any() else {}
    return {**ticks, **other}


def show_number(value: Any, form: str) -> str:
    """A dash for what is missing."""
    return NOTHING if pd.isna(value) else format(value, form)


def show_count(value: Any) -> str:
    """Four digits and a unit: `137.2 k`, `28.29 M`, `4.491 G`."""
    if pd.isna(value):
        return NOTHING
    unit, size = next((unit, size) for unit, size in UNITS.items() if value >= size or size == 1)
    scaled = value / size
    digits = 0 if size == 1 else max(0, 4 - len(str(int(scaled))))
    return f"{scaled:.{digits}f} {unit}".strip()


def _show_params(row: Row) -> str:
    count, factor = show_count(row["params"]), row["params_factor"]
    return count if pd.isna(factor) or factor == 1 else f"{count} ({factor:.2f}×)"


def _show_published_size(row: Row) -> str:
    """Parameters and multiply-adds as printed: `28.3 M, 4.5 G`."""
    sizes = {"M": row["published_params"], "G": row["published_macs"]}
    return ", ".join(f"{size:g} {unit}" for unit, size in sizes.items() if pd.notna(size)) or NOTHING


def thin_out(curve: str) -> str:
    """Of a curve as text, the last epoch and up to five before it, evenly spaced, with one digit."""
    points = curve.split(", ") if curve else []
    step = max(1, math.ceil(len(points) / CURVE_POINTS))
    shown = (point.split(": ") for point in points[::-1][::step][::-1])
    return ", ".join(f"{epoch}: {float(top1):.1f}" for epoch, top1 in shown)


def _show_replicates(row: Row) -> str:
    """`3` where every planned replicate was measured, else `2/3; diverged@412`."""
    if row["seeds"] == 0:
        return NOTHING
    if row["n"] == row["seeds"]:
        return str(row["n"])
    return "; ".join(part for part in (f"{row['n']}/{row['seeds']}", row["outcomes"]) if part)


def _show_top1(row: Row) -> str:
    spread: str = "" if pd.isna(row["top1_std"]) else f" ± {row['top1_std']:.2f}"
    return show_number(row["top1_mean"], ".2f") + spread


def _show_delta(row: Row) -> str:
    interval: str = "" if pd.isna(row["delta_low"]) else f" [{row['delta_low']:+.2f}, {row['delta_high']:+.2f}]"
    return show_number(row["delta"], "+.2f") + interval


def _show_notes(row: Row) -> str:
    paper = f"paper: {row['expected']}" if row["expected"] else ""
    agreement = f"{paper}, {row['agreement']}" if row["agreement"] else paper
    marks = f"skipped: {row['skipped']}" if row["skipped"] else row["marks"]
    return "; ".join(part for part in (agreement, marks) if part)


def to_claims(claims: pd.DataFrame) -> pd.DataFrame:
    """The verdict of each claim, as people read it."""
    cells: Cells = {
        "claim": lambda row: row["claim"],
        "Δ [95 %]": _show_delta,
        "verdict": lambda row: row["verdict"],
        "n": lambda row: str(row["pairs"]),
        "source": lambda row: row["source"] or NOTHING,
        "sign-flip p": lambda row: show_number(row["sign_flip_p"], ".2f"),
    }
    return _to_strings(claims, cells)


def to_effects(effects: pd.DataFrame) -> pd.DataFrame:
    """Each effect, as people read it."""
    cells: Cells = {
        "effect": lambda row: row["effect"],
        "points of top-1 [95 %]": _show_delta,
        "verdict": lambda row: row["verdict"] or NOTHING,
        "n": lambda row: str(row["pairs"]),
    }
    return _to_strings(effects, cells)


def _to_strings(frame: pd.DataFrame, cells: Cells) -> pd.DataFrame:
    shown = [{title: show(row) for title, show in cells.items()} for row in to_rows(frame)]
    return pd.DataFrame(shown, columns=list(cells))
