"""Columns of outcomes: how many runs were measured, what happened to the others, and marks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from harness.attestation import ATTESTED, UNATTESTED
from harness.spec.experiment import SCORE
from harness.table.column import Column, Kind, Latex, Note, Place, Row, to_rows
from harness.table.entry import (
    ALSO_CHANGES,
    DISPUTED,
    OWN_VARIANCE,
    PLACEBO,
    PLACEBO_DIFFERS,
    SKIPPED,
    THESE_IMAGES,
    Entry,
)
from harness.table.format import join
from harness.table.reason import AT_CHANCE, show_outcomes, show_reasons
from harness.tasks import TASKS
from harness.text import NOTHING, escape_latex, escape_markdown

if TYPE_CHECKING:
    from harness.table.results import Results


MARKS = {
    "missing": "no run of this row has ended yet.",
    "partial": "some of the planned replicates have no result yet.",
    "stale": "code or data have changed since these runs; `harness run` trains them again.",
    ATTESTED: "code has changed since these runs; a rehearsal under today's code computed the same, bit for bit.",
    UNATTESTED: "code has changed since these runs, and a rehearsal here cannot tell whether it computes the same; "
    "`harness run --retrain` trains them again.",
    ALSO_CHANGES: "the row differs from the baseline in more than its levels, as it declares: its difference has more "
    "than one possible cause.",
    "other environment": "made in another environment (versions, threads, device) than the baseline's run of its seed; "
    "no difference is shown. The csv has these columns.",
    "mixed environments": "its runs were made with different versions, threads or devices; each is compared with the "
    "baseline's run of the same environment.",
    AT_CHANCE: "the last validation of a run looks like guessing ({chance_rule}); nothing was learnt there.",
    "under-trained": "validation {title} still {climbed} when training ended; more epochs may change this row.",
    "at the ceiling": "{ceiling_rule}; differences cannot show here.",
    OWN_VARIANCE: "its runs, or the baseline's, spread unlike those of the other rows; it is judged by its own spread.",
    DISPUTED: "the paired t-test of its runs and the baseline's alone, after Holm's correction, decides otherwise.",
    THESE_IMAGES: "the verdict holds for these test images; counting the noise of their choice too would change it.",
    PLACEBO: "the baseline again, with other seeds: a control of the table, no hypothesis.",
    PLACEBO_DIFFERS: "the baseline's model is judged better or worse than itself.",
    "quoted": "the paper's number alone; no row of this experiment.",
}


def make_outcomes() -> tuple[Column[Entry], ...]:
    """The columns of the number of runs, of bad outcomes and of marks."""
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
        Column("outcomes", lambda entry: entry.outcomes, Kind.LIST, show_outcomes, note=Note(3, _explain_outcomes)),
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
            note=Note(8, _explain_marks),
        ),
        Column("skipped", lambda entry: entry.skipped),
        Column("unattested", lambda entry: entry.origins(UNATTESTED), Kind.LIST, join("; ")),
        Column(
            "also_changes", lambda entry: () if entry.row is None else entry.row.also_changes, Kind.LIST, join(", ")
        ),
    )


def is_complete(frame: pd.DataFrame) -> bool:
    """Whether all planned replicates are measured."""
    planned = frame[frame["seeds"] > 0]
    return bool((planned["n"] == planned["seeds"]).all())


def show_replicates(row: Row) -> str:
    """`3` if every planned replicate was measured, else `2/3; diverged@412`; empty for a row without runs."""
    if row["seeds"] == 0:
        return ""
    if row["n"] == row["seeds"]:
        return str(row["n"])
    return "; ".join(part for part in (f"{row['n']}/{row['seeds']}", show_outcomes(row["outcomes"])) if part)


def _show_notes(row: Row) -> str:
    paper = f"paper: {row['expected']}" if row["expected"] else ""
    marks = f"{SKIPPED}: {row['skipped']}" if row["skipped"] else join("; ")(row["marks"])
    return "; ".join(part for part in (paper, marks) if part)


def _explain_outcomes(results: Results) -> Iterator[str]:
    """The note on runs without a measurement, and their reasons."""
    if any(results.frame["outcomes"]):
        yield (
            "**n** counts measured replicates of planned ones, then every other outcome; `diverged@412` left the "
            "finite numbers at step 412. Means are over the measured replicates; where a bad outcome has thinned out a "
            "comparison, the rest resolves nothing."
        )
    for row in (*results.rows, *results.floors):
        if row["reasons"]:
            yield escape_markdown(f"{row['row']}: {show_reasons(row['reasons'])}.")


def list_marks(results: Results) -> list[str]:
    """Every mark that some row has, in a fixed order."""
    present = {mark for marks in results.frame["marks"] for mark in marks}
    return [mark for mark in MARKS if mark in present]


def explain_mark(mark: str, results: Results) -> str:
    """The explanation of a mark, in terms of the measure and the task."""
    measure, task = results.measure, TASKS[results.plan.spec.recipe.data.task]
    climbed = "climbed" if measure.direction == "higher" else "fell"
    words = {"title": measure.title, "climbed": climbed}
    return MARKS[mark].format(**words, chance_rule=task.chance_rule, ceiling_rule=task.ceiling_rule)


def _explain_marks(results: Results) -> Iterator[str]:
    """The note on every mark that some row has."""
    yield from (f"`{mark}`: {explain_mark(mark, results)}" for mark in list_marks(results))
    for row in (*results.rows, *results.floors):
        if row["unattested"]:
            yield escape_markdown(f"{row['row']}: {'; '.join(row['unattested'])}.")
        if row["also_changes"]:
            yield escape_markdown(f"{row['row']} also changes {', '.join(row['also_changes'])}.")
