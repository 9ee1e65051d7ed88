"""Compares a search's winner with controls, to see whether the searched values matter."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from harness.errors import SpecError
from harness.measure import Measure
from harness.plan import PlannedRow, SkippedRow
from harness.search.space import Space
from harness.search.spec import WINNER
from harness.statistics import Family, compare_contrasts
from harness.table.column import Column, make_frame
from harness.table.comparison import Compared, judge_gains, make_comparison_columns
from harness.table.selection import Replicates, is_comparable, is_thinned


def plan_controls(space: Space, values: Mapping[str, Any]) -> Iterator[PlannedRow | SkippedRow]:
    """The controls of a winner with these values: the row of each, or why it is impossible."""
    for name, changes in space.spec.controls.items():
        named = {
            field: values.get(value, value) if isinstance(value, str) else value for field, value in changes.items()
        }
        try:
            yield space.find_cell(name, values, named)
        except SpecError as error:
            yield SkippedRow(name, str(error))


def make_control_columns(measure: Measure) -> tuple[Column[Compared], ...]:
    """The columns in the order of the csv."""
    compared = make_comparison_columns(measure)
    del compared["sign_flip_p"]
    return Column("control", lambda control: control.name), *compared.values()


def judge_controls(space: Space, replicates: Mapping[str, Replicates]) -> pd.DataFrame:
    """Compare the winner with each control, with simultaneous 95 % intervals and verdicts as in a table.

    As in a table, rows of different images or code are not compared, and comparisons that lost runs by a bad outcome
    are unresolved.
    """
    winner, measure = replicates[WINNER], replicates[WINNER].measure
    named = [replicates[name] for name in space.spec.controls if name in replicates]
    controls = [control for control in named if is_comparable(winner, control)]
    scores = {row.row.name: row.blocks for row in (winner, *controls)}
    contrasts = [{WINNER: 1.0, control.row.name: -1.0} for control in controls]
    comparisons = compare_contrasts(scores, contrasts, Family.DUNNETT)
    thinned = [is_thinned(winner, control) for control in controls]
    judged = judge_gains(measure, comparisons, thinned, measure.relevant_gain)
    lines = [
        Compared(control.row.name, None, verdict)
        for control, verdict in zip(controls, judged, strict=True)
        if verdict.comparison is not None
    ]
    return make_frame(make_control_columns(measure), lines)
