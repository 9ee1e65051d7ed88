"""From records to the DataFrame of plain numbers that csv holds; `list_columns` has its columns."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

import pandas as pd

from harness.environment import is_mixed
from harness.measure import Measure
from harness.plan import Plan
from harness.record import Record, RunStatus
from harness.spec import ExperimentSpec
from harness.statistics import (
    Comparison,
    Verdict,
    average_curves,
    compare,
    compare_expectation,
    decide,
    holm,
    is_under_trained,
    summarize,
)
from harness.table.reason import AT_CHANCE, describe_outcome, is_run_at_chance
from harness.table.scores import name_scores
from harness.table.selection import (
    Digests,
    Replicates,
    is_comparable,
    is_paired_in_environments,
    is_thinned,
    select_replicates,
)
from harness.tasks import TASKS, find_measure, list_measures
from paradigms.config import TERMS

FACTORS = ("backbone", "parameterization", "normalization", "neighborhood", "aggregation", "heads")

PROVENANCE = (
    "code_digest",
    "data_digest",
    "commit",
    "dirty",
    "python",
    "torch",
    "torchvision",
    "timm",
    "mlflow",
    "numpy",
    "device",
    "threads",
    "kernels",
    "instructions",
)

TERM_COLUMNS = (*TERMS, "other_parameterization")
"""Which stages have each term of Eq. 4, and what is no term; see `Cell.terms`."""

_INTEGERS = ("seeds", "n", "pairs", "params", "macs")

_FLOATS = (
    *("delta", "delta_low", "delta_high", "t_p", "holm_p", "sign_flip_p"),
    *("params_factor", "images_per_second", "seconds", "peak_memory_gb", "published_delta"),
    *("published_params", "published_macs", "published_throughput"),
)

_FLAGS = ("is_floor", "published_quoted")

Sizes = Mapping[str, tuple[int, int]]
"""Parameters and multiply-adds of cells, by cell id."""


def list_columns(spec: ExperimentSpec) -> tuple[str, ...]:
    """What a table says comes first: row, score, difference, verdict; then sizes and origin.

    The columns of scores have the names of the task's measures in them; see `name_scores`.
    """
    measure, *others = list_measures(spec)
    score = name_scores(measure)
    return (
        "row",
        *(score.mean, score.std, "delta", "delta_low", "delta_high", "verdict"),
        *("n", "seeds", "outcomes", "reasons", "marks", "skipped"),
        *("pairs", "t_p", "holm_p", "sign_flip_p", *(name_scores(other).mean for other in others), score.val_mean),
        *(score.published, "published_delta", "published_quoted", "expected", "agreement"),
        "is_floor",
        *FACTORS,
        *TERM_COLUMNS,
        *("params", "params_factor", "macs", "images_per_second", "seconds", "peak_memory_gb"),
        *("published_params", "published_macs", "published_throughput"),
        *("val_curve", "published_curve"),
        *("experiment", "recipe", "overrides", "cell_id"),
        *PROVENANCE,
        "last_run",
    )


def _list_floats(spec: ExperimentSpec) -> tuple[str, ...]:
    measure, *others = list_measures(spec)
    score = name_scores(measure)
    return (score.mean, score.std, score.val_mean, score.published, *(name_scores(m).mean for m in others), *_FLOATS)


def make_table(
    plan: Plan,
    records: Iterable[Record],
    *,
    current: Mapping[str, Digests] | None = None,
    sizes: Sizes | None = None,
) -> pd.DataFrame:
    """One row a planned row, floors last, whatever there is of it.

    Args:
        plan: what the table is of; records of other cells and seeds are left out.
        records: may hold several of one run: a result goes before a bug, the newer before the older.
        current: code and data digest of each cell as they are now. Other records stand in only for a row that has
            none of now, and the row is marked `stale`; a row never holds records of two versions.
        sizes: what a row without any run has for parameters and multiply-adds.
    """
    rows = select_replicates(plan, records, current or {})
    baseline = next((row for row in rows if row.row.name == plan.spec.baseline), None)  # None: skipped
    comparisons = [_compare(row, baseline) for row in rows]
    measure, *others = list_measures(plan.spec)
    verdicts = to_verdicts(measure, comparisons, [baseline is not None and is_thinned(row, baseline) for row in rows])
    params = [_get_size("params", 0, row, sizes or {}) for row in rows]
    base_params = None if baseline is None else params[rows.index(baseline)]
    content = [
        {
            "row": row.row.name,
            "is_floor": row.row.is_floor,
            **row.row.cell.factors(),
            **dict(zip(TERM_COLUMNS, row.row.cell.terms().values(), strict=True)),
            **_to_outcome(row, others),
            **comparison,
            "params": count,
            "params_factor": count / base_params if count and base_params else None,
            "macs": _get_size("macs", 1, row, sizes or {}),
            **_to_published(row.row.name, plan.spec),
            **_to_expectation(row),
            "marks": "; ".join(_to_marks(row, baseline, plan.spec.recipe.data.test_images)),
            "skipped": "",
            **_to_origin(row, plan.spec),
        }
        for row, comparison, count in zip(rows, verdicts, params, strict=True)
    ]
    frame = pd.DataFrame(_add_rows_without_runs(content, plan), columns=list(list_columns(plan.spec)))
    return frame.astype({**dict.fromkeys(_INTEGERS, "Int64"), **dict.fromkeys(_list_floats(plan.spec), "float64")})


def _add_rows_without_runs(content: list[dict[str, Any]], plan: Plan) -> list[dict[str, Any]]:
    """Skipped rows at their place, then what is only quoted, floors last."""
    spec = plan.spec
    stated = plan.names
    skipped = [_to_empty(row.name, spec) | {"marks": "skipped", "skipped": row.reason} for row in plan.skipped]
    rows = [*(row for row in content if not row["is_floor"]), *skipped]
    if skipped:
        rows.sort(key=lambda row: stated.index(row["row"]))
    only_quoted = [name for name, printed in spec.published.items() if printed.quoted and name not in stated]
    quoted = [_to_empty(name, spec) | {"marks": "quoted"} for name in only_quoted]
    return [*rows, *quoted, *(row for row in content if row["is_floor"])]


def _to_empty(name: str, spec: ExperimentSpec) -> dict[str, Any]:
    """A row without any run: what is no number is an empty text."""
    texts = dict.fromkeys(set(list_columns(spec)) - {*_INTEGERS, *_list_floats(spec), *_FLAGS}, "")
    origin = {"experiment": spec.name, "recipe": spec.recipe.name, "overrides": spec.shown_overrides}
    return {**texts, "row": name, "is_floor": False, "seeds": 0, "n": 0, **_to_published(name, spec), **origin}


def _compare(row: Replicates, baseline: Replicates | None) -> Comparison | None:
    """Seed by seed; not with itself, not for floors, not over two versions of data or code, or two environments."""
    if baseline is None or row is baseline or row.row.is_floor or not is_comparable(row, baseline):
        return None
    return compare(row.scores, baseline.scores)


def to_verdicts(
    measure: Measure, comparisons: Sequence[Comparison | None], thinned: Sequence[bool]
) -> list[dict[str, Any]]:
    """Holm over all comparisons of the table; what a bad outcome has thinned out is not resolved by the rest."""
    corrected = holm([None if comparison is None else comparison.t_p for comparison in comparisons])
    return [
        {"verdict": ""} if comparison is None else _to_verdict(measure, comparison, holm_p, is_thinned=is_thinned)
        for comparison, holm_p, is_thinned in zip(comparisons, corrected, thinned, strict=True)
    ]


def _to_verdict(measure: Measure, comparison: Comparison, holm_p: float | None, *, is_thinned: bool) -> dict[str, Any]:
    values = asdict(comparison)
    verdict = Verdict.UNRESOLVED if is_thinned else decide(measure.sign * comparison.delta, holm_p)
    return {
        "delta": values["delta"],
        "delta_low": values["low"],
        "delta_high": values["high"],
        "pairs": values["n"],
        "t_p": values["t_p"],
        "holm_p": holm_p,
        "sign_flip_p": values["sign_flip_p"],
        "verdict": verdict.value,
    }


def _to_outcome(row: Replicates, others: Sequence[Measure]) -> dict[str, Any]:
    summary, names = summarize(list(row.scores.values())), name_scores(row.measure)
    curve = dict(enumerate(average_curves(_get_curve(record, row.measure) for record in row.ok), start=1))
    return {
        "seeds": len(row.seeds),
        "n": summary.n,
        "outcomes": _describe_outcomes([record for record in row.records.values() if record.status != RunStatus.OK]),
        "reasons": _list_reasons(row),
        names.mean: summary.mean,
        names.std: summary.std,
        "val_curve": to_curve_text(curve, row.measure),
        **{name_scores(other).mean: _average(row.ok, other.test) for other in others},
        names.val_mean: _average(row.ok, row.measure.val),
        "images_per_second": _average(row.ok, "train/images_per_second"),
        "seconds": _average(row.ok, "seconds"),
        "peak_memory_gb": _average(row.ok, "peak_memory_gb"),
    }


def _describe_outcomes(records: Sequence[Record]) -> str:
    """Bad outcomes in a word each, divergences with their steps: `diverged@412,398, failed ×2`."""
    parts = []
    for status in dict.fromkeys(record.status for record in records):
        same = [record for record in records if record.status == status]
        steps = [str(record.step) for record in same if record.step is not None]
        if len(steps) == len(same):
            parts.append(f"{status.value}@{','.join(steps)}")
        else:
            parts.append(status.value if len(same) == 1 else f"{status.value} ×{len(same)}")
    return ", ".join(parts)


def _list_reasons(row: Replicates) -> str:
    """What is to be said of single seeds: `seed 0 diverged at step 412: the training loss is nan; seed 2 ...`."""
    told = (record for record in row.records.values() if record.status != RunStatus.OK or is_run_at_chance(record))
    return "; ".join(f"seed {record.seed} {describe_outcome(record)}" for record in told)


def _average(records: Sequence[Record], metric: str) -> float | None:
    values = [record.metrics[metric] for record in records if metric in record.metrics]
    return fmean(values) if values else None


def _get_size(metric: str, position: int, row: Replicates, sizes: Sizes) -> int | None:
    measured = (record.metrics[metric] for record in row.records.values() if metric in record.metrics)
    known = next(measured, None)
    if known is not None:
        return round(known)
    return sizes[row.row.cell.id][position] if row.row.cell.id in sizes else None


def _to_expectation(row: Replicates) -> dict[str, str]:
    expected = row.row.expect
    if expected is None:
        return {"expected": "", "agreement": ""}
    statuses = [record.status for record in row.records.values()]
    return {"expected": expected, "agreement": compare_expectation(RunStatus(expected), statuses) or ""}


def _to_published(name: str, spec: ExperimentSpec) -> dict[str, Any]:
    published, baseline = spec.published.get(name), spec.published.get(spec.baseline)
    if published is None:
        return {"published_quoted": False, "published_curve": ""}
    measure = find_measure(spec)
    score = published.scores.get(measure.name)
    values: dict[str, Any] = {
        name_scores(measure).published: score,
        "published_params": published.params,
        "published_macs": published.macs,
        "published_throughput": published.throughput,
        "published_curve": to_curve_text(published.curve, measure),
        "published_quoted": published.quoted,
    }
    base = None if baseline is None else baseline.scores.get(measure.name)
    if score is not None and base is not None and name != spec.baseline:
        values["published_delta"] = round(score - base, 6)
    return values


def to_curve_text(curve: Mapping[int, float], measure: Measure) -> str:
    """A measure by epoch as a text: `50: 71.50, 100: 74.90`."""
    return ", ".join(f"{epoch}: {score:{measure.format}}" for epoch, score in curve.items())


def _to_marks(row: Replicates, baseline: Replicates | None, test_images: int | None) -> list[str]:
    """What a reader has to know before believing the row."""
    if not row.records:
        return ["missing"]
    curve = average_curves(_get_curve(record, row.measure) for record in row.ok)
    climbing = [row.measure.sign * score for score in curve]
    marks = {
        "stale": row.is_stale,
        "other environment": baseline is not None and not is_paired_in_environments(row, baseline),
        "mixed environments": is_mixed(record.provenance for record in row.records.values()),
        AT_CHANCE: any(map(is_run_at_chance, row.ok)),
        "partial": not row.is_complete,
        "under-trained": is_under_trained(climbing, row.measure.relevant_gain),
        "at the ceiling": _is_at_ceiling(row, test_images),
    }
    return [mark for mark, applies in marks.items() if applies]


def _get_curve(record: Record, measure: Measure) -> list[float]:
    return [epoch.metrics[measure.val] for epoch in record.curve if measure.val in epoch.metrics]


def _is_at_ceiling(row: Replicates, test_images: int | None) -> bool:
    num_images = _average(row.ok, "test/images") or test_images
    if num_images is None or not row.ok:
        return False
    task = TASKS[row.row.cell.data.task]
    return task.is_at_ceiling(row.measure, fmean(row.scores.values()), round(num_images))


def _to_origin(row: Replicates, spec: ExperimentSpec) -> dict[str, Any]:
    records = list(row.records.values())
    return {
        "experiment": spec.name,
        "recipe": spec.recipe.name,
        "overrides": spec.shown_overrides,
        "cell_id": row.row.cell.id,
        **{
            name: _join(record.provenance[name] for record in records if name in record.provenance)
            for name in PROVENANCE
        },
        "last_run": _to_date(max(record.end_time for record in records)) if records else "",
    }


def _join(values: Iterable[str]) -> str:
    return " | ".join(dict.fromkeys(values))


def _to_date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
