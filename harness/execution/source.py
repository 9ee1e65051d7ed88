"""Finds and fetches the initial weights of a run. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.attestation import judge
from harness.cell import Cell
from harness.errors import DataError, SpecError, StoreError, WeightsError
from harness.execution.ledger import Digester, find_rehearsals
from harness.initial import FromFile, FromRun, digest_file
from harness.names import to_printable
from harness.plan import Plan, PlannedRow, PlannedRun, make_plan
from harness.record import Record, RunStatus
from harness.tracking import Tracker

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "weights.pt"
"""The artifact with the weights of a run."""


@dataclass(frozen=True)
class InitialWeights:
    """Initial weights that exist.

    Attributes:
        place: a file, or the id of a stored run.
        description: the entry of the record.
    """

    place: FromFile | str
    description: str

    def fetch(self, tracker: Tracker, folder: Path) -> Path:
        """Return a file with the weights; weights of the store are written to `folder`.

        Raises:
            WeightsError: the file is gone, or has changed since the plan was made.
        """
        if isinstance(self.place, str):
            return tracker.fetch_file(self.place, WEIGHTS, folder)
        path = Path(self.place.path)
        if not path.is_file() or digest_file(path) != self.place.digest:
            raise WeightsError(f"{path} has changed since the plan was made")
        return path


def find_initial_weights(run: PlannedRun, tracker: Tracker) -> InitialWeights | None:
    """Find the initial weights of a run; None: it is trained from scratch.

    Raises:
        StoreError: it starts from a run that the store does not have.
    """
    initial = run.row.cell.init_from
    match initial:
        case None:
            return None
        case FromFile():
            return InitialWeights(initial, to_printable(f"file {initial.path}, sha256 {initial.digest}"))
        case FromRun():
            record = _find_record(initial, run.seed, tracker)
            if record is None or record.run_id is None:
                raise StoreError(_request_training(initial, [run.row.name], [run.seed]))
            description = (
                f"run {record.run_id} of row {initial.row} under recipe {initial.recipe}, cell {initial.cell_id}"
            )
            return InitialWeights(record.run_id, description)


def check_sources(runs: Iterable[PlannedRun], tracker: Tracker) -> None:
    """Check that the initial weights of every run exist, before the first is trained.

    Raises:
        StoreError: runs that have to be trained first, one line for each.
    """
    missing: dict[FromRun, list[PlannedRun]] = {}
    for run in runs:
        initial = run.row.cell.init_from
        if isinstance(initial, FromRun) and _find_record(initial, run.seed, tracker) is None:
            missing.setdefault(initial, []).append(run)
    if missing:
        asked = (
            _request_training(initial, list(dict.fromkeys(run.row.name for run in runs)), [run.seed for run in runs])
            for initial, runs in missing.items()
        )
        raise StoreError("\n".join(asked))


def check_fit(plan: Plan) -> None:
    """Check by shapes that the initial weights of all rows fit their models, before anything is trained.

    Raises:
        WeightsError: a file cannot be read.
        SpecError: weights do not fit a row.
    """
    rows = [row for row in plan.rows if row.cell.init_from is not None]
    if not rows:
        return
    from harness.build import build_model
    from harness.weights import find_misfit

    for row in rows:
        for name, weights in _list_initial(plan, row):
            model = build_model(row.cell, replicate=None, device="meta")
            misfit = find_misfit(weights, model, resize=True)
            if misfit is not None:
                message = f"the weights of {name} do not fit row {row.name}: {misfit}"
                place = ("rows", row.name, "init_from") if row.name in plan.spec.rows else ()
                raise plan.spec.error(message, *place)


def _list_initial(plan: Plan, row: PlannedRow) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """The initial weights of a row by name: the tensors of a file, or meta tensors of another row."""
    from harness.build import build_model
    from harness.weights import read

    match row.cell.init_from:
        case FromFile() as file:
            yield file.path, read(Path(file.path))
        case FromRun() as source:
            cell = find_source_cell(plan, source)
            if cell is not None:
                name = f"row {source.row} under recipe {source.recipe}"
                yield name, build_model(cell, replicate=None, device="meta").state_dict()


def list_stale(plan: Plan, tracker: Tracker, *, data_dir: Path | None) -> list[str]:
    """Describe each stored run whose weights a row starts from and that is stale."""
    digester, described = Digester(data_dir), {}
    for run in plan.runs:
        initial = run.row.cell.init_from
        if not isinstance(initial, FromRun):
            continue
        cell, record = find_source_cell(plan, initial), _find_record(initial, run.seed, tracker)
        if cell is None or record is None:
            continue
        try:
            today = {cell.id: digester.digest(cell)}
        except DataError:
            continue
        standing, _ = judge(record, today[cell.id], find_rehearsals([record], today, tracker))
        if not standing.has_result:
            described[record.run_id] = (
                f"run {record.run_id}, row {initial.row!r} under recipe {initial.recipe!r}, is stale, code or data "
                f"have changed since: {run.row.name} seed {run.seed} starts from its weights"
            )
    return list(described.values())


def find_source_cell(plan: Plan, source: FromRun) -> Cell | None:
    """The cell whose run a row starts from; None if its recipe cannot train all rows."""
    recipe = plan.spec.recipe.init_recipe
    try:
        trained = make_plan(plan.spec.model_copy(update={"recipe": recipe}))
    except SpecError:
        return None
    return next((row.cell for row in trained.rows if row.cell.id == source.cell_id), None)


def _find_record(initial: FromRun, seed: int, tracker: Tracker) -> Record | None:
    """The newest run of this cell and seed with status `ok` and with weights."""
    for record in tracker.ledger([initial.cell_id]):
        if record.seed == seed and record.status == RunStatus.OK and tracker.has_file(record.run_id or "", WEIGHTS):
            return record
    return None


def _request_training(initial: FromRun, rows: Sequence[str], seeds: Sequence[int]) -> str:
    shown = ", ".join(str(seed) for seed in sorted(set(seeds)))
    return (
        f"train row {initial.row!r} under recipe {initial.recipe!r} first: {', '.join(rows)} starts from its weights, "
        f"and the store has none of cell {initial.cell_id}, seed {shown}"
    )
