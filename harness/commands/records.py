"""`harness records`: moves runs between stores, machines and people as files that can be committed."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.attestation import ATTESTED_CODE, Standing
from harness.errors import StoreError
from harness.execution.ledger import find_digests, read_ledger
from harness.plan import Plan
from harness.report.files import find_records
from harness.text import count_noun
from harness.tracking import Tracker
from harness.tracking.record_files import PortableRun, merge_runs, read_runs, write_runs

logger = logging.getLogger(__name__)


def export_runs(plan: Plan, tracker: Tracker, results: Path, *, data_dir: Path | None = None) -> tuple[Path, ...]:
    """Write the runs of an experiment's table to `<results>/<recipe>/runs/<experiment>.jsonl`.

    Runs that the file already has are kept; of two runs of one cell and seed, the newer is kept. Runs of older code
    that no rehearsal has decided yet are left out, with a warning.

    Raises:
        DataError: the dataset is missing, so that the valid runs are not known.
        StoreError: the store has no valid run of the experiment or cannot be used, or the file is damaged or has other
            numbers for one of the runs.
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
    undecided = [entry for entry in entries if entry.standing == Standing.UNDECIDED]
    if undecided:
        logger.warning(
            "%s left out: code has changed since, and `harness rehearse` finds out whether they are valid",
            count_noun(len(undecided), "run"),
        )
    if not found:
        raise StoreError(f"the store has no valid run of {plan.spec.name} under recipe {plan.spec.recipe.name}")
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
    """Store the runs of record files; returns the number of new runs, and of those that the store had.

    Raises:
        StoreError: a file is missing or damaged, in which case nothing is stored; or the store cannot be used.
    """
    groups = [read_runs(path) for path in paths]
    added = [tracker.import_run(run) for group in groups for run in group]
    return sum(added), len(added) - sum(added)


def merge_files(paths: Sequence[Path], output: Path) -> tuple[Path, ...]:
    """Merge several record files into one, each run once.

    Raises:
        StoreError: a file is missing or damaged, or two files have different numbers for one run.
    """
    return write_runs(output, merge_runs([read_runs(path) for path in paths]))
