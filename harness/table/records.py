"""The runs behind a table, one per line, and comparisons between its rows, as DataFrames."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from harness.attestation import Digests
from harness.environment import ENVIRONMENT, is_mixed
from harness.measure import Measure
from harness.plan import Plan
from harness.record import Record, RunStatus
from harness.spec import ExperimentSpec
from harness.statistics import compare
from harness.table.frame import FACTORS, PROVENANCE, to_verdicts
from harness.table.selection import Replicates, get_images, select_replicates
from harness.tasks import DEFAULT_MEASURE, list_measures
from paradigms.facts import unknown_name

_METRICS = {
    "params": "params",
    "macs": "macs",
    "images_per_second": "train/images_per_second",
    "seconds": "seconds",
    "peak_memory_gb": "peak_memory_gb",
}

COMPARISON_COLUMNS = (
    *("row", "baseline", "pairs", "delta", "delta_low", "delta_high"),
    *("t_p", "holm_p", "sign_flip_p", "verdict"),
)

_RECORD_TYPES = {
    "is_floor": "bool",
    "seed": "int64",
    "stale": "boolean",
    "ended": "datetime64[us, UTC]",
}
_COMPARISON_TYPES = {
    "pairs": "Int64",
    **dict.fromkeys(("delta", "delta_low", "delta_high", "t_p", "holm_p", "sign_flip_p"), "float64"),
}


def list_record_columns(spec: ExperimentSpec) -> tuple[str, ...]:
    """Columns of `make_records`; the measures of the task come first among the metrics.

    `val_curve` is a tuple of the deciding measure's validation, one number an epoch; `stale` is NA where it is not
    known.
    """
    return (
        *("row", "is_floor", "seed", "status", "status_detail", "stale"),
        *_name_metrics(spec),
        "val_curve",
        *FACTORS,
        *("experiment", "recipe", "overrides", "cell_id"),
        *PROVENANCE,
        *("run_id", "ended"),
    )


def _name_metrics(spec: ExperimentSpec) -> dict[str, str]:
    """The metric of a record by column: the test set, then the last validation of the deciding measure."""
    measures = list_measures(spec)
    tested = {measure.name: measure.test for measure in measures}
    return {**tested, f"val_{measures[0].name}": measures[0].val, **_METRICS}


def make_records(plan: Plan, records: Iterable[Record], *, current: Mapping[str, Digests]) -> pd.DataFrame:
    """One line for each record that stands in the table, in the order of the plan's rows and their seeds.

    Args:
        plan: what the table is of; records of other cells and seeds are left out.
        records: may hold several of one run.
        current: code and data digest of each cell as they are now, where they are known.
    """
    content = [
        _to_line(plan, row, record, is_known=row.row.cell.id in current)
        for row in select_replicates(plan, records, current)
        for record in row.records.values()
    ]
    types = {**_RECORD_TYPES, **dict.fromkeys(_name_metrics(plan.spec), "float64")}
    return pd.DataFrame(content, columns=list(list_record_columns(plan.spec))).astype(types)


def _to_line(plan: Plan, row: Replicates, record: Record, *, is_known: bool) -> dict[str, Any]:
    return {
        "row": row.row.name,
        "is_floor": row.row.is_floor,
        "seed": record.seed,
        "status": record.status.value,
        "status_detail": record.status_detail,
        "stale": row.is_stale if is_known else None,
        **{
            name: record.metrics[metric]
            for name, metric in _name_metrics(plan.spec).items()
            if metric in record.metrics
        },
        "val_curve": tuple(epoch.metrics[row.measure.val] for epoch in record.curve),
        **row.row.cell.factors(),
        "experiment": plan.spec.name,
        "recipe": plan.spec.recipe.name,
        "overrides": plan.spec.shown_overrides,
        "cell_id": record.cell_id,
        **{name: record.provenance[name] for name in PROVENANCE if name in record.provenance},
        "run_id": record.run_id,
        "ended": datetime.fromtimestamp(record.end_time, UTC),
    }


def compare_records(records: pd.DataFrame, baseline: str, *, measure: Measure = DEFAULT_MEASURE) -> pd.DataFrame:
    """Every row of `make_records` but floors against one of them; what the table says of the same runs.

    Rows of other code or data than the baseline's, or of another environment, have no difference. `measure` is a column
    of the records.

    Raises:
        ValueError: no record is of the baseline.
    """
    rows = dict(list(records[~records["is_floor"]].groupby("row", sort=False)))
    if not rows:
        return _to_comparisons([])
    if baseline not in rows:
        raise ValueError(unknown_name("row", baseline, tuple(map(str, rows))))
    base = rows.pop(baseline)
    comparisons = [
        compare(_get_scores(row, measure), _get_scores(base, measure)) if _is_alike(row, base) else None
        for row in rows.values()
    ]
    thinned = [_is_thinned(row) or _is_thinned(base) for row in rows.values()]
    verdicts = to_verdicts(measure, comparisons, thinned)
    return _to_comparisons(
        [{"row": name, "baseline": baseline, **verdict} for name, verdict in zip(rows, verdicts, strict=True)]
    )


def _to_comparisons(content: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(content, columns=list(COMPARISON_COLUMNS)).astype(_COMPARISON_TYPES)


def _get_scores(row: pd.DataFrame, measure: Measure) -> dict[int, float]:
    done = row[row["status"] == RunStatus.OK.value]
    return dict(zip(done["seed"], done[measure.name], strict=True))


def _is_alike(row: pd.DataFrame, other: pd.DataFrame) -> bool:
    """As `is_comparable` of the records themselves."""
    both = pd.concat([row, other])
    versions = set(zip(map(get_images, both["data_digest"]), both["stale"].astype(object), strict=True))
    return len(versions) == 1 and not any(is_mixed(_list_environments(paired)) for _, paired in both.groupby("seed"))


def _list_environments(records: pd.DataFrame) -> list[dict[str, str]]:
    known = records.reindex(columns=list(ENVIRONMENT)).to_dict("records")
    return [{str(name): value for name, value in line.items() if isinstance(value, str)} for line in known]


def _is_thinned(row: pd.DataFrame) -> bool:
    return any(RunStatus(status).is_bad for status in row["status"])
