"""Columns of sizes, speed and the course of training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from harness.measure import Measure
from harness.table.column import Column, Kind, Latex, Note, Row
from harness.table.entry import Entry
from harness.table.format import number_epochs, show_count, show_curve, show_short_curve
from harness.text import escape_latex, escape_markdown

if TYPE_CHECKING:
    from harness.table.results import Results


def make_costs() -> tuple[Column[Entry], ...]:
    """Parameters, multiply-adds, speed, time and memory."""

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
            note=Note(1, _explain_throughput),
        ),
        Column("seconds", lambda entry: entry.average("seconds"), Kind.NUMBER),
        Column("peak_memory_gb", lambda entry: entry.average("peak_memory_gb"), Kind.NUMBER),
    )


def make_curve(measure: Measure) -> Column[Entry]:
    """Make the column of the validation score by epoch."""
    return Column(
        "val_curve",
        lambda entry: entry.curve,
        Kind.LIST,
        lambda curve: show_curve(number_epochs(curve), measure.format),
        title=f"val {measure.title} by epoch",
        key="curve",
        text=lambda row: show_short_curve(number_epochs(row["val_curve"]), measure),
        latex=Latex(),
        note=Note(4, _explain_curve),
    )


def explain_solutions(results: Results) -> Iterator[str]:
    """The note on sizes that were solved, so that rows cost as much as others."""
    solved = [f"{row.name}: {row.solution.describe()}" for row in results.plan.rows if row.solution is not None]
    if solved:
        yield f"**Solved sizes**: {escape_markdown('; '.join(solved))}."


def _explain_throughput(_: Results) -> Iterator[str]:
    """The note on what the speed measures."""
    yield "**images/s** is the speed of training beside the other workers; it is no benchmark."


def _explain_curve(results: Results) -> Iterator[str]:
    """The note that curves are means over seeds."""
    yield (f"**val {results.measure.title} by epoch** is the mean over the replicates; the csv has every epoch.")
