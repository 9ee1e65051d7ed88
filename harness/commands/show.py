"""`harness show`: finds one run, or one cell with all its seeds, and everything that is known about it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from harness.attestation import Standing, judge
from harness.cell import CONTENT, Cell
from harness.checkpoint import Checkpoint
from harness.errors import HarnessError, SpecError
from harness.execution.ledger import Digester, find_checkpoint, find_rehearsals
from harness.plan import Plan, PlannedRun, make_plan
from harness.reading import list_experiments, list_recipes, load_spec
from harness.record import RunStatus
from harness.spec import LimitsSpec
from harness.table.reason import explain, find_cause
from harness.tracking import RunDetails, StoredRun, Tracker
from harness.tracking.translation import to_config

_ID = re.compile(r"[0-9a-f]{3,32}")
_MAX_LISTED = 8


@dataclass(frozen=True)
class Place:
    """The place of a cell in a table."""

    experiment: str
    recipe: str
    overrides: tuple[str, ...]
    row: str


@dataclass(frozen=True)
class ShownRun:
    """A run with its details; for a copy, those of the original.

    Attributes:
        standing: its standing under the present code and data; None if it has no result, or if its cell or data are
            unknown.
        standing_reason: why it cannot be attested.
        checkpoint: the checkpoint from which it continues; None if it has ended with a result, or has no checkpoint.
    """

    run: StoredRun
    details: RunDetails
    standing: Standing | None = None
    standing_reason: str = ""
    checkpoint: Checkpoint | None = None

    @property
    def status(self) -> str:
        """Its status: how it ended, that it is running, or that it was left open."""
        if self.run.record is not None:
            return self.run.record.status.value
        return "running" if self.run.is_live else "left open"

    def to_plain(self) -> dict[str, Any]:
        """What `--json` prints."""
        run, record, details = self.run, self.run.record, self.details
        return {
            "run_id": run.run_id,
            "reused_from": run.reused_from,
            "experiment": run.experiment,
            "recipe": run.recipe,
            "overrides": run.overrides,
            "row": run.row,
            "seed": run.seed,
            "levels": run.levels,
            "status": self.status,
            "standing": None if self.standing is None else self.standing.value,
            "standing_reason": self.standing_reason,
            "epoch": None if self.checkpoint is None else self.checkpoint.epoch,
            "reason": "" if record is None else explain(record),
            "cause": "" if record is None else find_cause(record),
            "step": None if record is None else record.step,
            "module": "" if record is None else record.module,
            "started": run.started,
            "ended": None if record is None else record.end_time,
            "process": asdict(run.process),
            "limits": {} if record is None else record.limits,
            "metrics": {} if record is None else record.metrics,
            "curve": details.curve,
            "provenance": {} if record is None else record.provenance,
            "command": details.command,
            "location": details.location,
            "artifacts": details.artifacts,
        }


@dataclass(frozen=True)
class Shown:
    """The runs of a cell, and everything that is shown about them.

    Attributes:
        places: every table in the store that has the cell.
        runs: the requested run, or the newest run of every seed of a cell, by seed; empty if none is stored.
        levels: the level of each factor, as text.
        earlier: further attempts at the same cell and seeds, newest first.
        config: the resolved config without fields at their defaults.
    """

    cell_id: str
    places: tuple[Place, ...]
    levels: Mapping[str, str]
    runs: tuple[ShownRun, ...]
    earlier: tuple[StoredRun, ...]
    config: Mapping[str, Any]

    def to_plain(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "cell_id": self.cell_id,
            "places": self.places,
            "levels": self.levels,
            "config": self.config,
            "runs": [run.to_plain() for run in self.runs],
            "earlier": [run.run_id for run in self.earlier],
        }


def find_run(tracker: Tracker, prefix: str) -> StoredRun:
    """The run whose id begins with `prefix`.

    Raises:
        SpecError: there is none, or more than one; the message lists them.
        StoreError: the store cannot be used.
    """
    runs = {run.run_id: run for run in _find_stored(tracker, prefix) if run.run_id.startswith(prefix)}
    if len(runs) > 1:
        raise SpecError(_format_ambiguous_ids(prefix, runs, {}))
    if not runs:
        raise SpecError(f"no run in the store has an id that begins with {prefix!r}")
    return next(iter(runs.values()))


def find_shown(tracker: Tracker, prefix: str, *, data_dir: Path | None = None) -> Shown:
    """The run or the cell whose id begins with `prefix`, in the store or else in a shipped experiment.

    Raises:
        SpecError: there is none, or more than one; the message lists them.
        StoreError: the store cannot be used.
    """
    found = _find_stored(tracker, prefix)
    runs = {run.run_id: run for run in found if run.run_id.startswith(prefix)}
    cells = {run.cell_id: run for run in found if run.cell_id.startswith(prefix)}
    if len(runs) + len(cells) > 1:
        raise SpecError(_format_ambiguous_ids(prefix, runs, cells))
    if runs:
        (run,) = runs.values()
        return _gather(tracker, run.cell_id, [run], tracker.find_runs(run.cell_id), data_dir)
    if cells:
        newest: dict[int, StoredRun] = {}
        for run in [run for run in found if not run.reused_from] or found:
            newest.setdefault(run.seed, run)
        return _gather(tracker, next(iter(cells)), [newest[seed] for seed in sorted(newest)], found, data_dir)
    return _find_planned(prefix)


def _find_stored(tracker: Tracker, prefix: str) -> list[StoredRun]:
    """Every run whose id, or whose cell id, begins with `prefix`; newest first."""
    if not _ID.fullmatch(prefix):
        raise SpecError(
            "an id, or at least its first three characters, must consist of digits and the letters a to f, got "
            f"{prefix!r}; `harness plan` prints ids of cells, `harness status --json` and MLflow ids of runs"
        )
    return tracker.find_runs(prefix)


def _format_ambiguous_ids(prefix: str, runs: Mapping[str, StoredRun], cells: Mapping[str, StoredRun]) -> str:
    ids = [f"run {run_id} ({run.row} seed {run.seed} of {run.experiment})" for run_id, run in runs.items()]
    ids += [f"cell {cell_id} ({run.row} of {run.experiment})" for cell_id, run in cells.items()]
    more = f" and {len(ids) - _MAX_LISTED} more" if len(ids) > _MAX_LISTED else ""
    return f"{len(ids)} ids begin with {prefix!r}: {', '.join(ids[:_MAX_LISTED])}{more}"


def _gather(
    tracker: Tracker,
    cell_id: str,
    chosen: Sequence[StoredRun],
    stored: Sequence[StoredRun],
    data_dir: Path | None,
) -> Shown:
    """`stored` are all runs of the cell, newest first."""
    shown = tuple(ShownRun(run, tracker.read_details(run.reused_from or run.run_id)) for run in chosen)
    ids, seeds = {run.run_id for run in chosen}, {run.seed for run in chosen}
    earlier = [run for run in stored if run.run_id not in ids and run.seed in seeds and not run.reused_from]
    places = dict.fromkeys(Place(run.experiment, run.recipe, run.overrides, run.row) for run in stored)
    config = next((run.details.config for run in shown if run.details.config), {})
    reduced = reduce_config(config) if config else {}
    judged = tuple(_judge(shown, config, tracker, data_dir))
    return Shown(cell_id, tuple(places), chosen[0].levels, judged, tuple(earlier), reduced)


def _judge(
    runs: Sequence[ShownRun], config: Mapping[str, Any], tracker: Tracker, data_dir: Path | None
) -> Iterator[ShownRun]:
    """The runs with their standing under the present code and data, as far as known."""
    records = [run.run.record for run in runs if run.run.record is not None]
    try:
        today = Digester(data_dir).digest(Cell.from_dict(config)) if config else None
    except (ValueError, HarnessError):  # a cell of a plug-in that is not loaded, or a dataset that is not here
        today = None
    if today is None:
        yield from runs
        return
    rehearsals = find_rehearsals(records, {record.cell_id: today for record in records}, tracker)
    for run in runs:
        record = run.run.record
        if record is not None and record.status.is_result:
            standing, reason = judge(record, today, rehearsals)
            yield replace(run, standing=standing, standing_reason=reason)
            continue
        is_broken_off = not run.run.is_live if record is None else record.status == RunStatus.INTERRUPTED
        stored = run.run
        found = find_checkpoint(tracker.checkpoints, stored.cell_id, stored.seed, today) if is_broken_off else None
        yield run if found is None else replace(run, standing=Standing.RESUMABLE, checkpoint=found)


def _find_planned(prefix: str) -> Shown:
    """A cell without runs, of a shipped experiment under a shipped recipe."""
    found = [(plan, row) for plan in _make_plans() for row in plan.rows if row.cell.id.startswith(prefix)]
    ids = dict.fromkeys(row.cell.id for _, row in found)
    if not ids:
        raise SpecError(
            f"no run and no cell has an id that begins with {prefix!r}, in the store or a shipped experiment"
        )
    if len(ids) > 1:
        raise SpecError(f"{len(ids)} ids begin with {prefix!r}: {', '.join(f'cell {cell_id}' for cell_id in ids)}")
    plan, row = found[0]
    config = reduce_config(to_config(PlannedRun(row, 0), plan.spec))
    places = dict.fromkeys(Place(plan.spec.name, plan.spec.recipe.name, (), row.name) for plan, row in found)
    return Shown(row.cell.id, tuple(places), row.cell.factors(), (), (), config)


def _make_plans() -> Iterator[Plan]:
    """Every shipped experiment under every recipe that has sizes for its baseline."""
    for path, recipe in product(list_experiments().values(), list_recipes()):
        with suppress(SpecError):
            yield make_plan(load_spec(path, recipe=recipe))


def reduce_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the artifact `config.json` without defaults and fields without effect; equal stages once.

    A cell that cannot be read, for example because a plug-in is missing, is returned as it was written.
    """
    limits = LimitsSpec.model_validate(config["limits"], strict=False).model_dump(mode="json", exclude_defaults=True)
    initial = {"init_from": config["init_from"]} if config.get("init_from") else {}  # older runs do not have it
    try:
        content = Cell.from_dict(config).to_canonical()
    except ValueError:
        content = {name: config[name] for name in CONTENT if name in config}
    solution = {"solution": config["solution"]} if "solution" in config else {}
    return {**content, "limits": limits, **initial, **solution}
