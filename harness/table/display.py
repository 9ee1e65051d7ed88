"""Numbers formatted for people: the DataFrame of strings behind Markdown and the terminal."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from harness.cell import ALL
from harness.measure import Measure
from harness.spec import ExperimentSpec
from harness.spec.experiment import SCORE
from harness.statistics import ClaimVerdict, Verdict
from harness.table.findings import DIRECTIONS
from harness.table.scores import name_scores
from harness.tasks import find_measure, list_measures
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
    measure, *others = list_measures(spec)
    names, shown = name_scores(measure), list_shown(spec)
    groups: dict[str, Cells] = {
        SCORE: {measure.label: lambda row: _show_score(row, measure)},
        "delta": {
            f"Δ to {spec.baseline} [95 %]": lambda row: _show_delta(row, measure),
            "verdict": lambda row: row["verdict"] or NOTHING,
        },
        "parameterization": _make_ticks(frame),
        "normalization": {"normalization": lambda row: row["normalization"] or NOTHING},
        "neighborhood": {"neighborhood": lambda row: row["neighborhood"] or NOTHING},
        "params": {"params": _show_params},
        "macs": {"multiply-adds": lambda row: show_count(row["macs"])},
        "throughput": {"images/s": lambda row: show_number(row["images_per_second"], ",.0f")},
        "curve": {f"val {measure.title} by epoch": lambda row: thin_out(row["val_curve"], measure) or NOTHING},
    }
    cells: dict[str, Callable[[Row], str]] = {"row": lambda row: row["row"]}
    for column in (SCORE, "delta"):
        cells |= groups.pop(column) if column in shown else {}
    if SCORE in shown:
        cells["n"] = _show_replicates
    cells |= {other.label: _show_mean(other) for other in others if other.name in shown}
    if frame[names.published].notna().any():
        short = measure.short_format
        cells["paper"] = lambda row: show_number(row[names.published], short) + QUOTED * row["published_quoted"]
        cells["paper Δ"] = lambda row: show_number(row["published_delta"], f"+{short}")
    for column, group in groups.items():
        cells |= group if column in shown else {}
    if frame[["published_params", "published_macs"]].notna().any(axis=None):
        cells["paper size"] = _show_published_size
    if frame["published_throughput"].notna().any():
        cells["paper images/s"] = lambda row: show_number(row["published_throughput"], ",.0f")
    if frame["published_curve"].any():
        cells["paper by epoch"] = lambda row: thin_out(row["published_curve"], measure) or NOTHING
    if "delta" in shown:
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


def thin_out(curve: str, measure: Measure) -> str:
    """Of a curve as text, the last epoch and up to five before it, evenly spaced, in the measure's short format."""
    points = curve.split(", ") if curve else []
    step = max(1, math.ceil(len(points) / CURVE_POINTS))
    shown = (point.split(": ") for point in points[::-1][::step][::-1])
    return ", ".join(f"{epoch}: {float(score):{measure.short_format}}" for epoch, score in shown)


def _show_replicates(row: Row) -> str:
    """`3` where every planned replicate was measured, else `2/3; diverged@412`."""
    if row["seeds"] == 0:
        return NOTHING
    if row["n"] == row["seeds"]:
        return str(row["n"])
    return "; ".join(part for part in (f"{row['n']}/{row['seeds']}", row["outcomes"]) if part)


def list_shown(spec: ExperimentSpec) -> tuple[str, ...]:
    """The columns of an experiment; the deciding measure is `score`, however the file names it."""
    deciding = find_measure(spec).name
    return tuple(SCORE if column == deciding else column for column in spec.columns)


def _show_score(row: Row, measure: Measure) -> str:
    """Mean and standard deviation of the deciding measure."""
    names = name_scores(measure)
    spread: str = "" if pd.isna(row[names.std]) else f" ± {row[names.std]:{measure.format}}"
    return show_number(row[names.mean], measure.format) + spread


def _show_mean(measure: Measure) -> Callable[[Row], str]:
    return lambda row: show_number(row[name_scores(measure).mean], measure.format)


def _show_delta(row: Row, measure: Measure) -> str:
    low, high, form = row["delta_low"], row["delta_high"], f"+{measure.format}"
    interval: str = "" if pd.isna(low) else f" [{low:{form}}, {high:{form}}]"
    return show_number(row["delta"], form) + interval


def _show_notes(row: Row) -> str:
    paper = f"paper: {row['expected']}" if row["expected"] else ""
    agreement = f"{paper}, {row['agreement']}" if row["agreement"] else paper
    marks = f"skipped: {row['skipped']}" if row["skipped"] else row["marks"]
    return "; ".join(part for part in (agreement, marks) if part)


def to_claims(claims: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """The verdict of each claim, as people read it."""
    cells: Cells = {
        "claim": lambda row: row["claim"],
        "Δ [95 %]": lambda row: _show_delta(row, measure),
        "verdict": lambda row: row["verdict"],
        "n": lambda row: str(row["pairs"]),
        "source": lambda row: row["source"] or NOTHING,
        "sign-flip p": lambda row: show_number(row["sign_flip_p"], ".2f"),
    }
    return _to_strings(claims, cells)


def to_effects(effects: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Each effect, as people read it."""
    cells: Cells = {
        "effect": lambda row: row["effect"],
        f"{measure.difference} [95 %]": lambda row: _show_delta(row, measure),
        "verdict": lambda row: row["verdict"] or NOTHING,
        "n": lambda row: str(row["pairs"]),
    }
    return _to_strings(effects, cells)


def _to_strings(frame: pd.DataFrame, cells: Cells) -> pd.DataFrame:
    shown = [{title: show(row) for title, show in cells.items()} for row in to_rows(frame)]
    return pd.DataFrame(shown, columns=list(cells))
