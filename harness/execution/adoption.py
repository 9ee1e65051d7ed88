"""Adopts runs that were trained elsewhere: a record file beside the tables becomes part of the store, or is read."""

from collections.abc import Collection, Mapping
from pathlib import Path

from harness.attestation import Digests
from harness.execution.ledger import Entry, enter, find_rehearsals
from harness.plan import Plan
from harness.record import Record
from harness.report.files import find_records
from harness.tasks import find_measure
from harness.tracking import Tracker, locked
from harness.tracking.record_files import PortableRun, read_runs, read_scores


def adopt_runs(plan: Plan, tracker: Tracker, results: Path) -> int:
    """Import the runs of an experiment's record file that its experiment in the store lacks; returns their number.

    The store has each run once, however often this is called.

    Raises:
        StoreError: the file is damaged, in which case nothing is stored; or the store cannot be used.
    """
    name, path = plan.spec.name, find_records(plan.spec, results)
    if not path.exists() or not list_unadopted(plan, tracker.list_origins(name), results):
        return 0
    with locked(tracker, f"import into {name}"):
        known = tracker.list_origins(name)
        return sum(tracker.import_run(run) for run in read_runs(path) if run.origin not in known)


def gather_records(plan: Plan, tracker: Tracker, results: Path) -> list[Record]:
    """The runs of an experiment in the store, and those of its record file that the store lacks; stores nothing.

    Raises:
        StoreError: the file is damaged, or the store cannot be used.
    """
    name, cell_ids = plan.spec.name, [row.cell.id for row in plan.rows]
    stored = tracker.read_records(name, cell_ids, curves=[find_measure(plan.spec).val])
    return [*stored, *(run.record for run in list_unadopted(plan, tracker.list_origins(name), results))]


def list_unadopted(plan: Plan, known: Collection[str], results: Path) -> list[PortableRun]:
    """The runs of an experiment's record file, without arrays per test image, whose origins are not `known`.

    Raises:
        StoreError: the file is damaged.
    """
    path = find_records(plan.spec, results)
    return [run for run in read_scores(path) if run.origin not in known] if path.exists() else []


def preview_ledger(plan: Plan, tracker: Tracker, digests: Mapping[str, Digests], results: Path) -> tuple[Entry, ...]:
    """The ledger as `read_ledger` would return it after `adopt_runs`; stores nothing.

    Records that only the record file has are without a `run_id`.

    Raises:
        StoreError: the file is damaged, or the store cannot be used.
    """
    stored = tracker.ledger(row.cell.id for row in plan.rows)
    found = list_unadopted(plan, tracker.list_origins(plan.spec.name), results)
    known = tracker.find_runs_of(run.record.cell_id for run in found)
    elsewhere = {run.origin for run in known if run.record is not None}
    adopted = [run.record for run in found if run.origin not in elsewhere]
    records = sorted([*stored, *adopted], key=lambda record: -record.end_time)
    rehearsals = find_rehearsals(records, digests, tracker)
    return enter(plan, records, digests, rehearsals, checkpoints=tracker.checkpoints)
