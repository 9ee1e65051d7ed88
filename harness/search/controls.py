"""Compares a search's winner with controls, to see whether the searched values matter."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from harness.errors import SpecError
from harness.plan import Plan, PlannedRow, SkippedRow
from harness.record import Record
from harness.search.space import Space
from harness.search.spec import WINNER
from harness.statistics import compare
from harness.table.frame import to_verdicts
from harness.table.selection import is_comparable, is_thinned, select_replicates

COLUMNS = ("control", "pairs", "delta", "delta_low", "delta_high", "t_p", "holm_p", "verdict")


def plan_controls(space: Space, values: Mapping[str, Any]) -> Iterator[PlannedRow | SkippedRow]:
    """The controls of a winner with these values: a row each, or why it is impossible."""
    for name, changes in space.spec.controls.items():
        named = {
            field: values.get(value, value) if isinstance(value, str) else value for field, value in changes.items()
        }
        try:
            yield space.find_cell(name, values, named)
        except SpecError as error:
            yield SkippedRow(name, str(error))


def judge_controls(space: Space, plan: Plan, records: Iterable[Record]) -> pd.DataFrame:
    """The winner less each control, seed by seed, with 95 % Student-t intervals and Holm's correction over them.

    As in a table, rows of different images or code are not compared, and what a bad outcome has thinned out is
    unresolved.
    """
    found = {replicates.row.name: replicates for replicates in select_replicates(plan, records, {})}
    winner = found[WINNER]
    controls = [found[name] for name in space.spec.controls if name in found and is_comparable(winner, found[name])]
    comparisons = [compare(winner.scores, control.scores) for control in controls]
    verdicts = to_verdicts(winner.measure, comparisons, [is_thinned(winner, control) for control in controls])
    lines = [
        {"control": control.row.name, **verdict}
        for control, verdict in zip(controls, verdicts, strict=True)
        if verdict["verdict"]
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))
