"""The weights that a run starts from: known before anything is trained, fetched by the run. Imports no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import StoreError, WeightsError
from harness.initial import FromFile, FromRun, digest_file
from harness.names import to_printable
from harness.plan import PlannedRun
from harness.record import Record, RunStatus
from harness.tracking import Tracker

WEIGHTS = "weights.pt"
"""The artifact in which a run keeps its weights."""


@dataclass(frozen=True)
class Source:
    """Initial weights that are there.

    Attributes:
        place: a file, or the id of a stored run.
        description: what the record says of it.
    """

    place: FromFile | str
    description: str

    def fetch(self, tracker: Tracker, folder: Path) -> Path:
        """A file with the weights; what the store has is put into `folder`.

        Raises:
            WeightsError: the file is gone, or has changed since the plan was made.
        """
        if isinstance(self.place, str):
            return tracker.fetch_file(self.place, WEIGHTS, folder)
        path = Path(self.place.path)
        if not path.is_file() or digest_file(path) != self.place.digest:
            raise WeightsError(f"{path} has changed since the plan was made")
        return path


def find_source(run: PlannedRun, tracker: Tracker) -> Source | None:
    """Where a run's weights start; None: from scratch.

    Raises:
        StoreError: it starts from a run that the store does not have.
    """
    initial = run.row.cell.init_from
    match initial:
        case None:
            return None
        case FromFile():
            return Source(initial, to_printable(f"file {initial.path}, sha256 {initial.digest}"))
        case FromRun():
            record = _find_record(initial, run.seed, tracker)
            if record is None or record.run_id is None:
                raise StoreError(_ask_for(initial, [run.row.name], [run.seed]))
            told = f"run {record.run_id} of row {initial.row} under recipe {initial.recipe}, cell {initial.cell_id}"
            return Source(record.run_id, told)


def check_sources(runs: Iterable[PlannedRun], tracker: Tracker) -> None:
    """That every run has what it starts from is known before the first is trained.

    Raises:
        StoreError: what has to be trained first, a line each.
    """
    missing: dict[FromRun, list[PlannedRun]] = {}
    for run in runs:
        initial = run.row.cell.init_from
        if isinstance(initial, FromRun) and _find_record(initial, run.seed, tracker) is None:
            missing.setdefault(initial, []).append(run)
    if missing:
        asked = (
            _ask_for(initial, list(dict.fromkeys(run.row.name for run in runs)), [run.seed for run in runs])
            for initial, runs in missing.items()
        )
        raise StoreError("\n".join(asked))


def _find_record(initial: FromRun, seed: int, tracker: Tracker) -> Record | None:
    """The newest run of this cell and seed that has been trained to its end and has its weights."""
    for record in tracker.ledger([initial.cell_id]):
        if record.seed == seed and record.status == RunStatus.OK and tracker.has_file(record.run_id or "", WEIGHTS):
            return record
    return None


def _ask_for(initial: FromRun, rows: Sequence[str], seeds: Sequence[int]) -> str:
    shown = ", ".join(str(seed) for seed in sorted(set(seeds)))
    return (
        f"train row {initial.row!r} under recipe {initial.recipe!r} first: {', '.join(rows)} starts from its weights, "
        f"and the store has none of cell {initial.cell_id}, seed {shown}"
    )
