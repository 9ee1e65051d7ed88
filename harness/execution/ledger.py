"""Compares a plan with the store: what is done, stale or missing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.attestation import Digests, Standing, get_digests, judge
from harness.cell import Cell
from harness.checkpoint import Checkpoint, locate_checkpoints
from harness.confounds import check_confounds
from harness.data import check_data, data_digest
from harness.errors import HarnessError
from harness.plan import Plan, PlannedRun
from harness.provenance import code_digest, fingerprint_code
from harness.record import Record, RunStatus
from harness.spec import DataSpec, LimitsSpec
from harness.table.reason import LIMIT_OF
from harness.tasks import TASKS
from harness.trace import TRACE, Rehearsal
from harness.tracking import Tracker


@dataclass(frozen=True)
class Entry:
    """A planned run with what is known of it.

    Attributes:
        record: its result, outdated where stale, or a bug or an interruption; None where it was never tried.
        reason: why a result stands that nothing can attest.
        checkpoint: where a resumable run continues; only the run itself compares the environment.
    """

    run: PlannedRun
    standing: Standing
    record: Record | None
    reason: str = ""
    checkpoint: Checkpoint | None = None


class Digester:
    """Finds the digests of cells; the same files are looked at once, however many cells read them."""

    def __init__(self, data_dir: Path | None) -> None:
        self._data_dir = data_dir
        self._sources = fingerprint_code()
        self._data: dict[tuple[DataSpec, bool], str] = {}

    def digest_all(self, cells: Iterable[Cell]) -> dict[str, Digests]:
        """Code and data of cells as they are now, by cell id.

        Raises:
            SpecError: there is no such dataset.
            DataError: the dataset is missing.
            HarnessError: the project was edited since the first cell: its workers have imported it as it was then.
        """
        if fingerprint_code() != self._sources:
            raise HarnessError(
                "harness or paradigms were edited while this command ran; run it again to continue with the new code"
            )
        return {cell.id: (code_digest(cell), self._digest_data(cell)) for cell in cells}

    def digest(self, cell: Cell) -> Digests:
        """The same of one cell."""
        return self.digest_all([cell])[cell.id]

    def _digest_data(self, cell: Cell) -> str:
        files = cell.data.model_copy(update={"image_size": None})  # they are the same, whatever they are resized to
        key = files, cell.training.token_labels is not None
        if key not in self._data:
            self._data[key] = data_digest(cell.data, cell.training, data_dir=self._data_dir)
        return self._data[key]


def find_digests(plan: Plan, *, data_dir: Path | None) -> dict[str, Digests]:
    """Code and data of each cell as they are now, by cell id.

    Raises:
        SpecError: there is no such dataset.
        DataError: the dataset is missing.
    """
    return Digester(data_dir).digest_all(row.cell for row in plan.rows)


def check_plan(plan: Plan, *, data_dir: Path | None) -> None:
    """That the dataset can give what every row asks for: classes, channels, sizes, counts; no image is decoded.

    Raises:
        SpecError: there is no such dataset, the task lacks a package, or a row differs from the baseline in more than
            it states.
        DataError: it cannot.
    """
    for data, training in dict.fromkeys((row.cell.data, row.cell.training) for row in plan.rows):
        TASKS[data.task].check_packages()
        check_data(data, training, data_dir=data_dir)
    check_confounds(plan, {})


def read_ledger(
    plan: Plan, tracker: Tracker, digests: Mapping[str, Digests], *, tests: bool = True
) -> tuple[Entry, ...]:
    """One entry for each run of the plan, in its order; without the digests of a cell nothing of it is stale.

    Where the plan `tests`, runs that were not measured on the test set are none of its.
    """
    records = tracker.ledger(row.cell.id for row in plan.rows)
    rehearsals = find_rehearsals(records, digests, tracker)
    return enter(plan, records, digests, rehearsals, tests=tests, checkpoints=tracker.checkpoints)


def find_checkpoint(
    root: Path, cell_id: str, seed: int, today: Digests, *, is_verified: bool = False
) -> Checkpoint | None:
    """The newest checkpoint of a run by today's code on today's data, below the folder of all checkpoints.

    Its state is read only if it is to be verified.
    """
    folder = locate_checkpoints(root, cell_id, seed)
    found = folder.find() if is_verified else folder.peek()
    if found is None or (found.origin.get("code_digest"), found.origin.get("data_digest")) != today:
        return None
    return found


def find_rehearsals(records: Iterable[Record], digests: Mapping[str, Digests], tracker: Tracker) -> list[Rehearsal]:
    """The rehearsals of today's code that tell whether records of older code still stand."""
    older = dict.fromkeys(
        record.cell_id
        for record in records
        if TRACE in record.provenance and record.cell_id in digests and get_digests(record) != digests[record.cell_id]
    )
    found = tracker.read_rehearsals(older) if older else []
    return [made for made in found if (made.code_digest, made.data_digest) == digests[made.cell_id]]


def enter(
    plan: Plan,
    records: Iterable[Record],
    digests: Mapping[str, Digests],
    rehearsals: Sequence[Rehearsal] = (),
    *,
    tests: bool = True,
    checkpoints: Path | None = None,
) -> tuple[Entry, ...]:
    """The plan held against records that were read before, newest first; those of other cells are left out.

    `checkpoints` is the folder of all checkpoints; without it no run is resumable.
    """
    known = [record for record in records if not (tests and record.is_untested)]
    limits = plan.spec.recipe.limits
    entries = (_enter(run, known, digests.get(run.row.cell.id), limits, rehearsals) for run in plan.runs)
    return tuple(entry if checkpoints is None else _resume(entry, checkpoints, digests) for entry in entries)


def _resume(entry: Entry, checkpoints: Path, digests: Mapping[str, Digests]) -> Entry:
    """What is to do as resumable, where it has a checkpoint."""
    today = digests.get(entry.run.row.cell.id)
    if entry.standing != Standing.TO_DO or today is None:
        return entry
    found = find_checkpoint(checkpoints, entry.run.row.cell.id, entry.run.seed, today)
    return entry if found is None else replace(entry, standing=Standing.RESUMABLE, checkpoint=found)


def _enter(
    run: PlannedRun,
    records: Iterable[Record],
    today: Digests | None,
    limits: LimitsSpec,
    rehearsals: Sequence[Rehearsal],
) -> Entry:
    """The result that stands best, the newest of such; else whatever is newest."""
    own = [record for record in records if (record.cell_id, record.seed) == (run.row.cell.id, run.seed)]
    results = [record for record in own if stands(record, limits)]
    if not results:
        newest = own[0] if own else None
        has_failed = newest is not None and newest.status == RunStatus.FAILED and get_digests(newest) == today
        return Entry(run, Standing.FAILED if has_failed else Standing.TO_DO, newest)
    if today is None:
        return Entry(run, Standing.DONE, results[0])
    judged = [(record, *judge(record, today, rehearsals)) for record in results]
    order = list(Standing)
    record, standing, reason = min(judged, key=lambda entry: order.index(entry[1]))
    return Entry(run, standing, record, reason)


def select_runs(entries: Iterable[Entry]) -> tuple[PlannedRun, ...]:
    """The runs of some entries: one for a cell and seed, however many rows show it."""
    selected: dict[tuple[str, int], PlannedRun] = {}
    for entry in entries:
        selected.setdefault((entry.run.row.cell.id, entry.run.seed), entry.run)
    return tuple(selected.values())


def list_missing(entries: Iterable[Entry]) -> tuple[PlannedRun, ...]:
    """The runs without a result that stands, but for those that have failed: these are trained again on demand."""
    return select_runs(
        entry for entry in entries if not (entry.standing.has_result or entry.standing == Standing.FAILED)
    )


def stands(record: Record, limits: LimitsSpec) -> bool:
    """Whether an outcome need not be tried again: a run that hit a limit is, once the limit is wider."""
    name = LIMIT_OF.get(record.status)
    if name is None or name not in record.limits:
        return record.status.is_result
    limit: float | None = getattr(limits, name)
    return limit is not None and limit <= record.limits[name]
