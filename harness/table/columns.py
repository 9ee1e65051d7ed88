"""The columns of the table of an experiment, in the order of its csv; custom columns come last."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from harness.measure import Measure
from harness.plan import ALL, Cell
from harness.spec import ExperimentSpec
from harness.spec.experiment import SCORE
from harness.statistics import summarize
from harness.table import notes
from harness.table.column import Column, Kind, Latex, Note, Place, Row, to_rows
from harness.table.comparison import make_comparison_columns
from harness.table.entry import SKIPPED, Entry
from harness.table.format import (
    QUOTED,
    TERM_TITLES,
    TICK,
    join,
    show_count,
    show_curve,
    show_in_math,
    show_number,
    show_short_curve,
)
from harness.table.reason import show_outcomes, show_reasons
from harness.table.scores import name_scores
from harness.tasks import find_measure, list_measures
from harness.text import NOTHING, escape_latex
from paradigms.config import TERMS

COLUMNS: dict[str, Column[Entry]] = {}
"""Custom columns by name: a plug-in adds its own here, behind all others."""

PROVENANCE = (
    "code_digest",
    "data_digest",
    "commit",
    "dirty",
    "python",
    "torch",
    "torchvision",
    "timm",
    "mlflow",
    "numpy",
    "device",
    "threads",
    "kernels",
    "instructions",
)

TICK_FORMULA = r"$\surd$"

TERM_FORMULAS = dict(zip(TERMS, ("$qk$", "$qr^k$", "$r^qk$", "$r^b$"), strict=True))

MAX_NAME_LENGTH = 30
"""Characters of a row's name in LaTeX; longer ones are broken into lines."""


def list_columns(spec: ExperimentSpec) -> tuple[str, ...]:
    """Names of the frame's and the csv's columns; those of scores have the names of the task's measures in them."""
    return tuple(column.name for column in make_columns(list_measures(spec), baseline=spec.baseline))


def list_shown(spec: ExperimentSpec) -> tuple[str, ...]:
    """What an experiment's `columns` ask for; the deciding measure is `score`, however the file names it."""
    deciding = find_measure(spec).name
    return tuple(SCORE if column == deciding else column for column in spec.columns)


def make_columns(measures: Sequence[Measure], *, baseline: str) -> tuple[Column[Entry], ...]:
    """What a table says comes first: row, score, difference, verdict; then sizes and origin.

    The first of `measures` decides.
    """
    measure, *others = measures
    compared = make_comparison_columns(
        measure, title=f"Δ to {baseline} [95 %]", key="delta", note=Note(2, notes.explain_delta)
    )
    mean, std, val_mean = _make_scores(measure)
    name = Column[Entry](
        "row",
        lambda entry: entry.name,
        title="row",
        place=Place.RESULT,
        latex=Latex(width=0.3, max_length=MAX_NAME_LENGTH),
    )
    return (
        name,
        mean,
        std,
        *(compared.pop(column) for column in ("delta", "delta_low", "delta_high", "verdict")),
        *_make_counts(),
        *compared.values(),
        *map(_make_mean, others),
        val_mean,
        *_make_published_results(measure),
        Column("is_floor", lambda entry: entry.is_floor, Kind.FLAG, note=Note(6, notes.explain_floors)),
        *_make_factors(),
        *_make_costs(),
        *_make_published_sizes(),
        *_make_curves(measure),
        *_make_origin(),
        *COLUMNS.values(),
    )


def make_factor_columns(get: Callable[[Any], Cell | None]) -> tuple[Column[Any], ...]:
    """The level of each factor in the cell of an item."""

    def level(factor: str) -> Callable[[Any], str | None]:
        return lambda item: None if (cell := get(item)) is None else cell.factors()[factor]

    names = ("backbone", "parameterization", "normalization", "neighborhood", "aggregation")
    heads = Column[Any](
        "heads", lambda item: None if (cell := get(item)) is None else cell.num_heads, Kind.LIST, join(", ")
    )
    return *(Column[Any](name, level(name)) for name in names), heads


def _make_scores(measure: Measure) -> tuple[Column[Entry], ...]:
    """Mean and standard deviation on the test set, and the mean of the last validation."""
    names = name_scores(measure)

    def show_spread(row: Row, spread: str) -> str:
        return "" if pd.isna(row[names.std]) else f"{spread} {row[names.std]:{measure.format}}"

    mean = Column[Entry](
        names.mean,
        lambda entry: summarize(list(entry.runs.scores.values())).mean,
        Kind.NUMBER,
        title=measure.title,
        unit=measure.unit,
        key=SCORE,
        place=Place.RESULT,
        text=lambda row: show_number(row[names.mean], measure.format) + show_spread(row, " ±"),
        latex=Latex(
            "r@{}l", cells=lambda row: [show_in_math(row[names.mean], measure.format), show_spread(row, r" $\pm$")]
        ),
        note=Note(0, notes.explain_score),
    )
    std = Column[Entry](names.std, lambda entry: summarize(list(entry.runs.scores.values())).std, Kind.NUMBER)
    return mean, std, Column(names.val_mean, lambda entry: entry.average(measure.val), Kind.NUMBER)


def _make_mean(measure: Measure) -> Column[Entry]:
    """Of a measure that does not decide."""
    return Column(
        name_scores(measure).mean,
        lambda entry: entry.average(measure.test),
        Kind.NUMBER,
        title=measure.title,
        unit=measure.unit,
        key=measure.name,
        place=Place.COUNT,
        form=measure.format,
        latex=Latex("r"),
    )


def _make_counts() -> tuple[Column[Entry], ...]:
    """How many runs, what happened to the others, and what a reader has to know."""
    measured = Column[Entry](
        "n",
        lambda entry: len(entry.runs.scores),
        Kind.COUNT,
        title="n",
        key=SCORE,
        place=Place.COUNT,
        text=lambda row: show_replicates(row) or NOTHING,
        latex=Latex(
            "r",
            "$n$",
            lambda row: [f"{row['n']}/{row['seeds']}" if row["seeds"] else escape_latex(NOTHING)],
            when=lambda frame: not is_complete(frame),
        ),
    )
    return (
        measured,
        Column("seeds", lambda entry: len(entry.seeds), Kind.COUNT),
        Column(
            "outcomes", lambda entry: entry.outcomes, Kind.LIST, show_outcomes, note=Note(3, notes.explain_outcomes)
        ),
        Column("reasons", lambda entry: entry.reasons, Kind.MAPPING, show_reasons),
        Column(
            "marks",
            lambda entry: entry.marks,
            Kind.LIST,
            join("; "),
            title="notes",
            place=Place.NOTES,
            when=lambda frame: any(map(_show_notes, to_rows(frame))),
            text=_show_notes,
            note=Note(8, notes.explain_marks),
        ),
        Column("skipped", lambda entry: entry.skipped),
    )


def is_complete(frame: pd.DataFrame) -> bool:
    """Whether all planned replicates are measured."""
    planned = frame[frame["seeds"] > 0]
    return bool((planned["n"] == planned["seeds"]).all())


def show_replicates(row: Row) -> str:
    """`3` where every planned replicate was measured, else `2/3; diverged@412`; empty for a row without runs."""
    if row["seeds"] == 0:
        return ""
    if row["n"] == row["seeds"]:
        return str(row["n"])
    return "; ".join(part for part in (f"{row['n']}/{row['seeds']}", show_outcomes(row["outcomes"])) if part)


def _show_notes(row: Row) -> str:
    paper = f"paper: {row['expected']}" if row["expected"] else ""
    agreement = f"{paper}, {row['agreement']}" if row["agreement"] else paper
    marks = f"{SKIPPED}: {row['skipped']}" if row["skipped"] else join("; ")(row["marks"])
    return "; ".join(part for part in (agreement, marks) if part)


def _make_published_results(measure: Measure) -> tuple[Column[Entry], ...]:
    """What the paper says of the row."""
    name, form = name_scores(measure).published, measure.short_format

    def is_printed(frame: pd.DataFrame) -> bool:
        return bool(frame[name].notna().any())

    score = Column[Entry](
        name,
        lambda entry: entry.printed.scores.get(measure.name),
        Kind.NUMBER,
        title="paper",
        place=Place.COUNT,
        when=is_printed,
        text=lambda row: show_number(row[name], form) + QUOTED * row["published_quoted"],
        note=Note(5, notes.explain_paper),
    )
    delta = Column[Entry](
        "published_delta",
        lambda entry: entry.published_delta,
        Kind.NUMBER,
        title="paper Δ",
        place=Place.COUNT,
        when=is_printed,
        form=f"+{form}",
    )
    return (
        score,
        delta,
        Column("published_quoted", lambda entry: entry.printed.quoted, Kind.FLAG),
        Column(
            "expected",
            lambda entry: None if entry.row is None else entry.row.expect,
            note=Note(7, notes.explain_expected),
        ),
        Column("agreement", lambda entry: entry.agreement),
    )


def _make_factors() -> tuple[Column[Entry], ...]:
    """The levels of the row, and its terms of Eq. 4: a narrow column for each, one for what is no term."""

    def show(column: Column[Entry]) -> Column[Entry]:
        name = column.name
        return replace(column, title=name, key=name, on_terminal=False, latex=Latex())

    def make_term(name: str, term: str) -> Column[Entry]:
        return Column(
            name,
            lambda entry: None if entry.row is None else entry.row.cell.terms()[term],
            title=TERM_TITLES.get(term, term),
            key="parameterization",
            place=Place.TERMS,
            on_terminal=False,
        )

    def make_tick(term: str) -> Column[Entry]:
        return replace(
            make_term(term, term),
            text=lambda row: TICK if row[term] == ALL else row[term],
            latex=Latex(
                "c", TERM_FORMULAS[term], lambda row: [TICK_FORMULA if row[term] == ALL else escape_latex(row[term])]
            ),
            note=Note(9, notes.explain_terms) if term == TERMS[0] else None,
        )

    other = replace(
        make_term("other_parameterization", "other"),
        text=lambda row: row["other_parameterization"],
        when=lambda frame: bool(frame["other_parameterization"].any()),
        latex=Latex(width=0.1),
    )
    levels = make_factor_columns(lambda entry: None if entry.row is None else entry.row.cell)
    shown = ("normalization", "neighborhood")
    return (*(show(level) if level.name in shown else level for level in levels), *map(make_tick, TERMS), other)


def _make_costs() -> tuple[Column[Entry], ...]:
    def show_params(row: Row) -> str:
        count, factor = show_count(row["params"]), row["params_factor"]
        return count if pd.isna(factor) or factor == 1 else f"{count} ({factor:.2f}×)"

    def get_factor(entry: Entry) -> float | None:
        count, base = entry.size[0], entry.base_params
        return count / base if count and base else None

    return (
        Column(
            "params",
            lambda entry: entry.size[0],
            Kind.COUNT,
            title="params",
            key="params",
            text=show_params,
            latex=Latex("r", cells=lambda row: [escape_latex(show_count(row["params"]))]),
        ),
        Column("params_factor", get_factor, Kind.NUMBER),
        Column(
            "macs",
            lambda entry: entry.size[1],
            Kind.COUNT,
            title="multiply-adds",
            key="macs",
            text=lambda row: show_count(row["macs"]),
            on_terminal=False,
            latex=Latex("r", "MAdds"),
        ),
        Column(
            "images_per_second",
            lambda entry: entry.average("train/images_per_second"),
            Kind.NUMBER,
            title="images/s",
            key="throughput",
            form=",.0f",
            on_terminal=False,
            latex=Latex("r"),
            note=Note(1, notes.explain_throughput),
        ),
        Column("seconds", lambda entry: entry.average("seconds"), Kind.NUMBER),
        Column("peak_memory_gb", lambda entry: entry.average("peak_memory_gb"), Kind.NUMBER),
    )


def _make_published_sizes() -> tuple[Column[Entry], ...]:
    def show_sizes(row: Row) -> str:
        """Parameters and multiply-adds as printed: `28.3 M, 4.5 G`."""
        sizes = {"M": row["published_params"], "G": row["published_macs"]}
        return ", ".join(f"{size:g} {unit}" for unit, size in sizes.items() if pd.notna(size)) or NOTHING

    return (
        Column(
            "published_params",
            lambda entry: entry.printed.params,
            Kind.NUMBER,
            title="paper size",
            place=Place.PAPER,
            when=lambda frame: bool(frame[["published_params", "published_macs"]].notna().any(axis=None)),
            text=show_sizes,
        ),
        Column("published_macs", lambda entry: entry.printed.macs, Kind.NUMBER),
        Column(
            "published_throughput",
            lambda entry: entry.printed.throughput,
            Kind.NUMBER,
            title="paper images/s",
            place=Place.PAPER,
            when=lambda frame: bool(frame["published_throughput"].notna().any()),
            form=",.0f",
        ),
    )


def _make_curves(measure: Measure) -> tuple[Column[Entry], ...]:
    def number(curve: Sequence[float]) -> dict[int, float]:
        return dict(enumerate(curve, start=1))

    return (
        Column(
            "val_curve",
            lambda entry: entry.curve,
            Kind.LIST,
            lambda curve: show_curve(number(curve), measure.format),
            title=f"val {measure.title} by epoch",
            key="curve",
            text=lambda row: show_short_curve(number(row["val_curve"]), measure),
            latex=Latex(),
            note=Note(4, notes.explain_curve),
        ),
        Column(
            "published_curve",
            lambda entry: entry.printed.curve,
            Kind.MAPPING,
            lambda curve: show_curve(curve, measure.format),
            title="paper by epoch",
            place=Place.PAPER,
            when=lambda frame: bool(frame["published_curve"].astype(bool).any()),
            text=lambda row: show_short_curve(row["published_curve"], measure),
        ),
    )


def _make_origin() -> tuple[Column[Entry], ...]:
    def get(name: str) -> Callable[[Entry], tuple[str, ...]]:
        return lambda entry: entry.origins(name)

    return (
        Column("experiment", lambda entry: entry.spec.name),
        Column("recipe", lambda entry: entry.spec.recipe.name),
        Column("overrides", lambda entry: entry.spec.overrides, Kind.LIST, shlex.join),
        Column("cell_id", lambda entry: None if entry.row is None else entry.row.cell.id),
        *(Column[Entry](name, get(name), Kind.LIST, join(" | ")) for name in PROVENANCE),
        Column(
            "last_run",
            lambda entry: entry.last_run,
            Kind.DATE,
            lambda date: "" if pd.isna(date) else show_date(date),
        ),
    )


def show_date(date: pd.Timestamp) -> str:
    """`2026-11-18 11:06 UTC`."""
    return date.strftime("%Y-%m-%d %H:%M UTC")
