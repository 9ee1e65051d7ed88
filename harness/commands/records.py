"""`harness records`: moves runs between stores, machines and people as files that can be committed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.attestation import ATTESTED_CODE, Standing
from harness.execution.ledger import find_digests, read_ledger
from harness.plan import Plan
from harness.report.files import find_records
from harness.tracking import Tracker
from harness.tracking.record_files import PortableRun, merge_runs, read_runs, write_runs


def export_runs(plan: Plan, tracker: Tracker, results: Path, *, data_dir: Path | None = None) -> tuple[Path, ...]:
    """Write the runs that stand in an experiment's table to `<results>/<recipe>/runs/<experiment>.jsonl`.

    Runs that the file has already are kept; of two runs of one cell and seed the newer stays.

    Raises:
        DataError: the dataset is missing, so that it is not known which runs stand.
        StoreError: the store cannot be used, or the file is damaged or has other numbers for one of the runs.
    """
    path = find_records(plan.spec, results)
    digests = find_digests(plan, data_dir=data_dir)
    entries = read_ledger(plan, tracker, digests)
    found: dict[str, PortableRun] = {}
    for entry in entries:
        record = entry.record
        if record is not None and record.run_id is not None and entry.standing.has_result:
            attested = {ATTESTED_CODE: digests[record.cell_id][0]} if entry.standing == Standing.ATTESTED else {}
            run = _gather(plan, tracker, entry.run.row.name, record.run_id, attested)
            found.setdefault(run.origin, run)
    known = read_runs(path) if path.exists() else []
    return write_runs(path, merge_runs([found.values(), known]))


def _gather(plan: Plan, tracker: Tracker, row: str, run_id: str, attested: Mapping[str, str]) -> PortableRun:
    """The run with this id as a row of the plan; `attested` is added to its provenance."""
    (stored,) = tracker.find_runs(run_id)
    details = tracker.read_details(run_id)
    assert stored.record is not None, "the ledger has ended runs alone"
    provenance = {**stored.record.provenance, **attested}
    return PortableRun(
        origin=stored.origin,
        experiment=plan.spec.name,
        title=plan.spec.title,
        recipe=stored.recipe,
        overrides=stored.overrides,
        levels=stored.levels,
        config=details.config,
        started=stored.started,
        record=replace(stored.record, row=row, curve=details.curve, provenance=provenance, run_id=None),
        per_image=tracker.read_predictions(run_id),
    )


def import_runs(paths: Sequence[Path], tracker: Tracker) -> tuple[int, int]:
    """Store the runs of record files; how many are new, and how many the store had.

    Raises:
        StoreError: a file is missing or damaged, in which case nothing is stored; or the store cannot be used.
    """
    groups = [read_runs(path) for path in paths]
    added = [tracker.import_run(run) for group in groups for run in group]
    return sum(added), len(added) - sum(added)


def merge_files(paths: Sequence[Path], output: Path) -> tuple[Path, ...]:
    """Write the runs of several record files to one, each once.

    Raises:
        StoreError: a file is missing or damaged, or two disagree about one run.
    """
    return write_runs(output, merge_runs([read_runs(path) for path in paths]))
