"""Adopts runs that were trained elsewhere: a record file beside the tables becomes part of the store, or is read."""

from pathlib import Path

from harness.plan import Plan
from harness.record import Record
from harness.report.files import find_records
from harness.tasks import find_measure
from harness.tracking import Tracker
from harness.tracking.record_files import read_runs, read_scores


def adopt_runs(plan: Plan, tracker: Tracker, results: Path) -> int:
    """Import the runs of an experiment's record file that its experiment in the store lacks; returns their number.

    The store has each run once, however often this is called.

    Raises:
        StoreError: the file is damaged, in which case nothing is stored; or the store cannot be used.
    """
    path = find_records(plan.spec, results)
    if not path.exists():
        return 0
    known = tracker.list_origins(plan.spec.name)
    if all(run.origin in known for run in read_scores(path)):
        return 0
    return sum(tracker.import_run(run) for run in read_runs(path) if run.origin not in known)


def gather_records(plan: Plan, tracker: Tracker, results: Path) -> list[Record]:
    """The runs of an experiment in the store, and those of its record file that the store lacks; stores nothing.

    Raises:
        StoreError: the file is damaged, or the store cannot be used.
    """
    name, path = plan.spec.name, find_records(plan.spec, results)
    stored = tracker.read_records(name, [row.cell.id for row in plan.rows], curves=[find_measure(plan.spec).val])
    if not path.exists():
        return stored
    known = tracker.list_origins(name)
    return [*stored, *(run.record for run in read_scores(path) if run.origin not in known)]
