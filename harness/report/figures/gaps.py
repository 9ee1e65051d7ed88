"""Texts of figures about rows that have no number, or fewer runs than planned."""

from collections.abc import Iterable

from harness.table.column import Row
from harness.table.columns.outcomes import show_replicates
from harness.table.entry import QUOTED
from harness.table.format import join
from harness.table.reason import show_outcomes


def explain_gap(row: Row) -> str:
    """Why a row has no number or fewer runs than planned, in a word; empty if nothing is missing."""
    if row["n"]:
        return "" if row["n"] == row["seeds"] else show_replicates(row)
    return show_outcomes(row["outcomes"]) or join("; ")(row["marks"])


def name_with_gap(row: Row) -> str:
    """`Net1`, or `Net1 (diverged@412)`."""
    gap = explain_gap(row)
    return f"{row['row']} ({gap})" if gap else str(row["row"])


def list_gaps(rows: Iterable[Row]) -> str:
    """The note below a figure on runs without a number; empty if there are none."""
    gaps = [name_with_gap(row) for row in rows if explain_gap(row) and QUOTED not in row["marks"]]
    return f"runs without a number: {'; '.join(gaps)}" if gaps else ""
