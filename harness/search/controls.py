"""Does what was searched matter beyond what a control leaves of it? The winner against rows made from it."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from harness.errors import SpecError
from harness.plan import Plan, PlannedRow, SkippedRow
from harness.record import Record
from harness.search.space import Space
from harness.statistics import compare, decide, holm
from harness.table.selection import select_replicates

WINNER = "Winner"
"""The row of the final comparison that the search has found."""

COLUMNS = ("control", "pairs", "delta", "low", "high", "t_p", "holm_p", "verdict")


def plan_controls(space: Space, values: Mapping[str, Any]) -> tuple[list[PlannedRow], list[SkippedRow]]:
    """The controls of a winner with these values: a row each, or why it is impossible."""
    rows, skipped = [], []
    for name, changes in space.spec.controls.items():
        named = {
            field: values.get(value, value) if isinstance(value, str) else value for field, value in changes.items()
        }
        try:
            rows.append(space.find_cell(name, values, named))
        except SpecError as error:
            skipped.append(SkippedRow(name, str(error)))
    return rows, skipped


def judge_controls(space: Space, plan: Plan, records: Iterable[Record]) -> pd.DataFrame:
    """The winner less each control, seed by seed, with 95 % Student-t intervals and Holm's correction over them."""
    found = {replicates.row.name: replicates.top1 for replicates in select_replicates(plan, records, {})}
    compared = {name: compare(found[WINNER], found[name]) for name in space.spec.controls if name in found}
    known = {name: comparison for name, comparison in compared.items() if comparison is not None}
    adjusted = holm([comparison.t_p for comparison in known.values()])
    lines = [
        (name, c.n, c.delta, c.low, c.high, c.t_p, p, decide(c.delta, p).value)
        for (name, c), p in zip(known.items(), adjusted, strict=True)
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))
