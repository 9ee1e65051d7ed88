"""Adopts runs that were trained elsewhere: a record file beside the tables becomes part of the store."""

from pathlib import Path

from harness.plan import Plan
from harness.report.files import find_records
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
