"""Columns of what the paper prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from harness.measure import Measure
from harness.spec import ExperimentSpec
from harness.table.column import Column, Kind, Note, Place, Row
from harness.table.columns.scores import name_scores
from harness.table.entry import Agreement, Entry
from harness.table.format import show_curve, show_number, show_short_curve
from harness.text import NOTHING, escape_code, escape_markdown

if TYPE_CHECKING:
    from harness.table.results import Results


DAGGER = "†"


def make_published_results(measure: Measure) -> tuple[Column[Entry], ...]:
    """The columns of published results."""
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
        text=lambda row: show_number(row[name], form) + DAGGER * row["published_quoted"],
        note=Note(5, _explain_paper),
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
        Column(
            "replication",
            lambda entry: entry.replication,
            title="as printed?",
            place=Place.COUNT,
            when=_is_comparable,
            note=Note(5, _explain_replication),
        ),
        Column("published_quoted", lambda entry: entry.printed.quoted, Kind.FLAG),
        Column(
            "expected",
            lambda entry: entry.expected,
            note=Note(7, _explain_expected),
        ),
    )


def make_published_sizes() -> tuple[Column[Entry], ...]:
    """The columns of published sizes and speed."""

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


def make_published_curve(measure: Measure) -> Column[Entry]:
    """The column of the published validation score by epoch."""
    return Column(
        "published_curve",
        lambda entry: entry.printed.curve,
        Kind.MAPPING,
        lambda curve: show_curve(curve, measure.format),
        title="paper by epoch",
        place=Place.PAPER,
        when=lambda frame: bool(frame["published_curve"].astype(bool).any()),
        text=lambda row: show_short_curve(row["published_curve"], measure),
    )


def _explain_paper(results: Results) -> Iterator[str]:
    """The note on what the published numbers measure."""
    frame, spec = results.frame, results.plan.spec
    published = [name_scores(results.measure).published, "published_params", "published_macs", "published_throughput"]
    if not (frame[published].notna().any(axis=None) or any(frame["published_curve"])):
        return
    printed = "the paper's numbers" if spec.source is None else f"as printed in {escape_markdown(to_source(spec))}"
    others = (
        f", of other data, sizes or schedules than the recipe {escape_code(spec.recipe.name)}: "
        "compare the sign and the order of differences, not the values"
    )
    yield f"**paper**: {printed}{'' if _is_comparable(frame) else others}."
    if frame["published_quoted"].any():
        yield f"{DAGGER} quoted there from another paper, not trained by the authors."


def _is_comparable(frame: pd.DataFrame) -> bool:
    """Whether some printed score can be compared with a row."""
    return bool(frame["replication"].isin([*Agreement]).any())


def _explain_replication(results: Results) -> Iterator[str]:
    """The note on how runs are compared with printed scores."""
    if _is_comparable(results.frame):
        yield (
            "**as printed?**: whether the printed score lies where one more run of the row is expected, by the spread "
            "of our runs; these intervals hold together with 95 %."
        )


def to_source(spec: ExperimentSpec) -> str:
    """The place where the experiment is published."""
    assert spec.source is not None
    places = {"Table": spec.source.table, "Figure": spec.source.figure}
    return ", ".join([spec.source.paper, *(f"{kind} {n}" for kind, n in places.items() if n is not None)])


def _explain_expected(results: Results) -> Iterator[str]:
    """The note on outcomes that the paper reports in words."""
    if results.frame["expected"].any():
        yield "`paper: ...` is the outcome that the paper reports in words; the claims have the verdict."
