"""The runs behind a table, one per line, and comparisons between its rows, as DataFrames."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from harness.attestation import Digests
from harness.measure import Measure
from harness.placebo import FIRST_SEED
from harness.plan import Plan
from harness.record import Record, RunStatus
from harness.spec import ExperimentSpec
from harness.table.column import Column, Kind, make_frame, to_rows
from harness.table.columns.levels import make_factor_columns
from harness.table.columns.origin import PROVENANCE
from harness.table.comparison import Compared, compare_rows, judge_gains, make_comparison_columns
from harness.table.entry import list_scores
from harness.table.selection import Replicates, Runs, is_thinned, select_replicates
from harness.tasks import DEFAULT_MEASURE, list_measures
from paradigms.facts import unknown_name


@dataclass(frozen=True)
class Line:
    """A record with its row in the table; `is_stale` is None if unknown."""

    record: Record
    replicates: Replicates
    spec: ExperimentSpec
    is_stale: bool | None


def list_record_columns(spec: ExperimentSpec) -> tuple[str, ...]:
    """Names of the columns of `read_records`; the measures of the task come first among the metrics."""
    return tuple(column.name for column in make_record_columns(spec))


def make_record_columns(spec: ExperimentSpec) -> tuple[Column[Line], ...]:
    """The columns in the order of the frame.

    `val_curve` has the validation score of the deciding measure, one number per epoch; `stale` is NA if unknown.
    """
    measures = list_measures(spec)
    metrics = {
        **{measure.name: measure.test for measure in measures},
        f"val_{measures[0].name}": measures[0].val,
        "params": "params",
        "macs": "macs",
        "images_per_second": "train/images_per_second",
        "seconds": "seconds",
        "peak_memory_gb": "peak_memory_gb",
    }

    def make_metric(name: str, metric: str) -> Column[Line]:
        return Column(name, lambda line: line.record.metrics.get(metric), Kind.NUMBER)

    def make_origin(name: str) -> Column[Line]:
        return Column(name, lambda line: line.record.provenance.get(name), Kind.MAYBE_TEXT)

    return (
        Column("row", lambda line: line.replicates.row.name),
        Column("is_floor", lambda line: line.replicates.row.is_floor, Kind.FLAG),
        Column("is_placebo", lambda line: line.replicates.row.is_placebo, Kind.FLAG),
        Column("seed", lambda line: line.record.seed, Kind.INDEX),
        Column("status", lambda line: line.record.status.value),
        Column("status_detail", lambda line: line.record.status_detail),
        Column("stale", lambda line: line.is_stale, Kind.MAYBE_FLAG),
        *(make_metric(name, metric) for name, metric in metrics.items()),
        Column("val_curve", lambda line: tuple(list_scores(line.record, line.replicates.measure)), Kind.LIST),
        *make_factor_columns(lambda line: line.replicates.row.cell),
        Column("experiment", lambda line: line.spec.name),
        Column("recipe", lambda line: line.spec.recipe.name),
        Column("overrides", lambda line: line.spec.overrides, Kind.LIST),
        Column("cell_id", lambda line: line.record.cell_id),
        *map(make_origin, PROVENANCE),
        Column("run_id", lambda line: line.record.run_id, Kind.MAYBE_TEXT),
        Column("ended", lambda line: datetime.fromtimestamp(line.record.end_time, UTC), Kind.DATE),
    )


def make_records(plan: Plan, records: Iterable[Record], *, current: Mapping[str, Digests]) -> pd.DataFrame:
    """One line for each record of the table, in the order of the plan's rows and seeds.

    Args:
        plan: the plan of the table; records of other cells and seeds are left out.
        records: may contain several records of one run.
        current: the present digests of code and data of each cell, as far as known.
    """
    lines = [
        Line(record, row, plan.spec, row.is_stale if row.row.cell.id in current else None)
        for row in select_replicates(plan, records, current)
        for record in row.records.values()
    ]
    return make_frame(make_record_columns(plan.spec), lines)


def make_compared_columns(measure: Measure) -> tuple[Column[Compared], ...]:
    """The columns in the order of the frame that `compare_records` returns."""
    return (
        Column("row", lambda row: row.name),
        Column("baseline", lambda row: row.about),
        *make_comparison_columns(measure).values(),
    )


COMPARISON_COLUMNS = tuple(column.name for column in make_compared_columns(DEFAULT_MEASURE))


def compare_records(records: pd.DataFrame, baseline: str, *, measure: Measure = DEFAULT_MEASURE) -> pd.DataFrame:
    """Compare the rows of `make_records`, without floors, with the baseline, as the table does for the same runs.

    A placebo is compared outside of the family of the others, as in the table. Rows whose code, data or environment
    differ from the baseline's have no difference. `measure` is a column of the records.

    Raises:
        ValueError: the baseline has no record.
    """
    groups = records[~records["is_floor"]].groupby("row", sort=False)
    rows = {str(name): _to_runs(lines, measure) for name, lines in groups}
    if rows and baseline not in rows:
        raise ValueError(unknown_name("row", baseline, tuple(rows)))
    others = [name for name in rows if name != baseline]
    placebo = next((row for row in records.loc[records["is_placebo"], "row"] if row != baseline), None)
    compared_rows = compare_rows(rows, baseline, placebo) if rows else {}
    comparisons = [compared_rows[name] for name in others]
    thinned = [is_thinned(rows[name], rows[baseline]) for name in others]
    judged = judge_gains(measure, comparisons, thinned, measure.relevant_gain)
    compared = [Compared(name, baseline, verdict) for name, verdict in zip(others, judged, strict=True)]
    return make_frame(make_compared_columns(measure), compared)


def _to_runs(lines: pd.DataFrame, measure: Measure) -> Runs:
    """The runs of a row for a comparison, from the lines of its records."""
    records = {
        line["seed"] - (FIRST_SEED if line["is_placebo"] else 0): Record(
            line["cell_id"],
            line["row"],
            line["seed"],
            RunStatus(line["status"]),
            {measure.test: line[measure.name]},
            provenance={name: line[name] for name in PROVENANCE if isinstance(line.get(name), str)},
        )
        for line in to_rows(lines)
    }
    return Runs(records, measure, is_stale=bool(lines["stale"].fillna(value=False).any()))
