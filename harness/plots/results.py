"""The data of a table's figures: its plan, its frame and the records of each row."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from harness.attestation import Digests
from harness.measure import Measure
from harness.plan import Plan
from harness.record import Record
from harness.table.display import Row, to_rows
from harness.table.findings import Findings, make_findings
from harness.table.frame import make_table
from harness.table.scores import ScoreColumns, name_scores
from harness.table.selection import Replicates, select_replicates
from harness.tasks import find_measure


@dataclass(frozen=True)
class Results:
    """What the records of a plan come to; `replicates` are the records that stand in each planned row, by its name."""

    plan: Plan
    frame: pd.DataFrame
    findings: Findings
    replicates: Mapping[str, Replicates]

    @property
    def measure(self) -> Measure:
        """The one that decides."""
        return find_measure(self.plan.spec)

    @property
    def score(self) -> ScoreColumns:
        """The columns of that measure."""
        return name_scores(self.measure)

    @property
    def rows(self) -> list[Row]:
        """The rows of the frame, floors left out."""
        return [row for row in to_rows(self.frame) if not row["is_floor"]]

    @property
    def floors(self) -> list[Row]:
        """The rows of models without attention."""
        return [row for row in to_rows(self.frame) if row["is_floor"]]


def make_results(plan: Plan, records: Iterable[Record], *, current: Mapping[str, Digests]) -> Results:
    """Choose the records of each row and compute what the table says of them; see `make_table`."""
    known = list(records)
    return Results(
        plan,
        make_table(plan, known, current=current),
        make_findings(plan, known, current=current),
        {row.row.name: row for row in select_replicates(plan, known, current)},
    )


def explain_gap(row: Row) -> str:
    """Why a row has no number, or fewer than planned, in a word; empty where nothing is missing."""
    if row["n"] and row["n"] == row["seeds"]:
        return ""
    if row["n"]:
        return "; ".join(part for part in (f"{row['n']}/{row['seeds']}", row["outcomes"]) if part)
    return str(row["outcomes"] or row["marks"])


def name_with_gap(row: Row) -> str:
    """`Net1`, or `Net1 (diverged@412)`."""
    gap = explain_gap(row)
    return f"{row['row']} ({gap})" if gap else str(row["row"])


def list_gaps(rows: Iterable[Row]) -> str:
    """What stands below a figure where runs have no number; empty where all have one."""
    gaps = [name_with_gap(row) for row in rows if explain_gap(row) and row["marks"] != "quoted"]
    return f"runs without a number: {'; '.join(gaps)}" if gaps else ""
