"""`harness run --reproduce`: trains one seed of every row again, and compares it with the committed run."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from harness.commands.records import export_runs
from harness.environment import list_changes
from harness.errors import StoreError
from harness.files import temporary_folder
from harness.measure import Measure
from harness.plan import Plan
from harness.record import Record, RunStatus
from harness.report.files import find_records
from harness.statistics import predict_runs
from harness.table.reason import describe_outcome
from harness.tasks import find_measure
from harness.text import NOTHING, count_noun
from harness.tracking import Tracker
from harness.tracking.record_files import PortableRun, read_runs

STORE = "reproduced.db"
"""The store of these runs, beside the default one; with the committed runs in the store, nothing would be trained."""

COSTS = ("seconds", "images_per_second", "memory_gb")
"""Endings of metrics that differ in every run."""

CommittedRuns = Mapping[str, Sequence[PortableRun]]
"""The results of each row, by seed."""


class Match(StrEnum):
    """The result of comparing a run with the committed one of its row and seed."""

    EQUAL = "equal bit for bit"
    WITHIN = "within the spread"
    DIFFERENT = "different"
    UNKNOWN = "no spread to compare with"


@dataclass(frozen=True)
class Reproduced:
    """A row that was trained again.

    Attributes:
        committed: the run of the record file.
        again: the new run; None if it has no result.
        interval: the interval in which one more run of the row is expected; None if there is only one committed run.
    """

    row: str
    committed: PortableRun
    again: PortableRun | None
    interval: tuple[float, float] | None
    measure: Measure

    @property
    def match(self) -> Match:
        """Whether the new run is equal, within the spread of the committed runs, or different."""
        if self.again is None:
            return Match.DIFFERENT
        if _to_result(self.again) == _to_result(self.committed) and _has_equal_images(self.again, self.committed):
            return Match.EQUAL
        score = self.again.record.metrics.get(self.measure.test)
        if score is None or self.committed.record.status != RunStatus.OK:
            return Match.DIFFERENT
        if self.interval is None:
            return Match.UNKNOWN
        return Match.WITHIN if self.interval[0] <= score <= self.interval[1] else Match.DIFFERENT

    def to_cells(self) -> list[str]:
        """The cells of its row in the printed table."""
        low, high = self.interval or (None, None)
        expected = NOTHING if low is None else f"{low:{self.measure.format}} to {high:{self.measure.format}}"
        new = NOTHING if self.again is None else self._show(self.again.record)
        return [self.row, str(self.committed.record.seed), self._show(self.committed.record), new, expected, self.match]

    def _show(self, record: Record) -> str:
        score = record.metrics.get(self.measure.test)
        return describe_outcome(record) if score is None else f"{score:{self.measure.format}}"


def read_committed(plan: Plan, results: Path) -> CommittedRuns:
    """The committed results of a plan's rows.

    Raises:
        StoreError: there is no record file beside the table, it is damaged, or it has no run of these rows.
    """
    path = find_records(plan.spec, results)
    if not path.exists():
        raise StoreError(f"there is nothing to reproduce: {path} does not exist")
    rows = {(run.row.cell.id, run.seed): run.row.name for run in plan.runs}
    found: dict[str, list[PortableRun]] = {}
    for run in sorted(read_runs(path), key=lambda run: run.record.seed):
        row = rows.get((run.record.cell_id, run.record.seed))
        if row is not None and run.record.status.is_result:
            found.setdefault(row, []).append(run)
    if not found:
        raise StoreError(f"there is nothing to reproduce: {path} has no run of these rows")
    return found


def choose_runs(plan: Plan, committed: CommittedRuns) -> Plan:
    """The plan of the first committed seed of every row."""
    seeds = {row: runs[0].record.seed for row, runs in committed.items()}
    runs = tuple(run for run in plan.runs if seeds.get(run.row.name) == run.seed)
    spec = plan.spec.model_copy(update={"until_resolved": None})
    return replace(plan, spec=spec, rows=tuple(row for row in plan.rows if row.name in seeds), runs=runs)


def compare_runs(
    plan: Plan, committed: CommittedRuns, tracker: Tracker, *, data_dir: Path | None = None
) -> list[Reproduced]:
    """Compare new runs with the committed runs of the same rows and seeds; `plan` is the result of `choose_runs`.

    Raises:
        StoreError: the store has the committed runs themselves.
    """
    with temporary_folder() as folder:
        trained = read_runs(export_runs(plan, tracker, folder, data_dir=data_dir)[0])
    origins = {run.origin for runs in committed.values() for run in runs}
    if any(run.origin in origins for run in trained):
        raise StoreError("the store has the committed runs themselves: `--tracking-uri` names another one")
    again = {(run.record.cell_id, run.record.seed): run for run in trained}
    measure = find_measure(plan.spec)
    floors = {row.name for row in plan.rows if row.is_floor}
    scores = {row: _list_scores(runs, measure) for row, runs in committed.items()}
    intervals = {
        **predict_runs({row: own for row, own in scores.items() if row not in floors}),
        **predict_runs({row: own for row, own in scores.items() if row in floors}),
    }
    return [
        Reproduced(row, first, again.get((first.record.cell_id, first.record.seed)), intervals.get(row), measure)
        for row, (first, *_) in committed.items()
    ]


def describe(reproduced: Sequence[Reproduced]) -> str:
    """One line per row, then the number of matches, and the differences of the environments."""
    measure = reproduced[0].measure
    headers = ["row", "seed", f"committed {measure.label}", "again", "expected", "result"]
    table = tabulate([item.to_cells() for item in reproduced], headers, tablefmt="simple", disable_numparse=True)
    matches = [item.match for item in reproduced]
    counts = ", ".join(f"{matches.count(match)} {match}" for match in Match if match in matches)
    return f"{table}\n\n{count_noun(len(matches), 'row')}: {counts}\n{_describe_environments(reproduced)}"


def _describe_environments(reproduced: Sequence[Reproduced]) -> str:
    pairs = [(item.committed.record.provenance, item.again.record.provenance) for item in reproduced if item.again]
    changes = {f"{name} {old[name]} then, {new[name]} now" for old, new in pairs for name in list_changes(old, new)}
    return f"other environment: {'; '.join(sorted(changes))}" if changes else "in the same environment"


def _list_scores(runs: Sequence[PortableRun], measure: Measure) -> dict[Hashable, float]:
    records = [run.record for run in runs if run.record.status == RunStatus.OK]
    return {record.seed: record.metrics[measure.test] for record in records}


def _to_result(run: PortableRun) -> Any:
    """The results of a run: outcome, scores and curve."""
    record = run.record
    curve = [(epoch.epoch, epoch.step, _select_results(epoch.metrics)) for epoch in record.curve]
    return record.status, record.step, _select_results(record.metrics), curve


def _select_results(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.endswith(COSTS)}


def _has_equal_images(run: PortableRun, other: PortableRun) -> bool:
    return run.per_image.keys() == other.per_image.keys() and all(
        np.array_equal(values, other.per_image[name]) for name, values in run.per_image.items()
    )
