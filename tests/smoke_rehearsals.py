"""Rehearsals of the cells of shipped experiments, and the committed digests of those under `smoke`.

python -m tests.smoke_rehearsals      writes those of this environment to results/rehearsals/smoke.json
"""

import json
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.engines.engine import Returned
from harness.engines.local import LocalEngine
from harness.execution.context import execute_rehearsal
from harness.execution.ledger import find_digests
from harness.execution.setup import Setup
from harness.plan import Plan, PlannedRow, PlannedRun, make_plan
from harness.provenance import collect
from harness.reading import is_search, list_experiments, load_spec
from harness.trace import Rehearsal
from harness.tracking import MlflowTracker

COMMITTED = Path(__file__).parents[1] / "results" / "rehearsals" / "smoke.json"
COMMAND = "make rehearsals"
SEED = 0

EXPERIMENTS = tuple(name for name, path in list_experiments().items() if not is_search(path))

Digests = dict[str, str]
"""Of the traces, by cell."""


class Rehearsals:
    """Rehearses cells once each; `folder` keeps what is known for other processes."""

    def __init__(self, folder: Path, *, workers: int) -> None:
        self._folder = folder
        self._engine = LocalEngine(workers=workers, preload=["harness.execution.rehearse"])

    def rehearse(self, plan: Plan) -> dict[str, Rehearsal]:
        """By cell, one replicate of every row."""
        rows = {row.cell.id: row for row in plan.rows}
        unknown = [row for cell_id, row in rows.items() if not self._locate(cell_id).exists()]
        for made in self._execute(plan, unknown):
            written = self._locate(made.cell_id).with_suffix(f".{id(made)}")
            written.write_bytes(pickle.dumps(made))
            written.replace(self._locate(made.cell_id))
        return {cell_id: pickle.loads(self._locate(cell_id).read_bytes()) for cell_id in rows}

    def _locate(self, cell_id: str) -> Path:
        return self._folder / f"{cell_id}.pickle"

    def _execute(self, plan: Plan, rows: Iterable[PlannedRow]) -> Iterator[Rehearsal]:
        provenance, digests = collect(threads=self._engine.threads), find_digests(plan, data_dir=None)
        setup = Setup(plan.spec, MlflowTracker("sqlite:///unused.db"), self._engine, provenance, digests, data_dir=None)
        runs = [PlannedRun(row, SEED) for row in rows]
        jobs = [setup.make_job(run.row.cell.id, execute_rehearsal, run, setup.make_context(run)) for run in runs]
        for event in self._engine.execute(jobs):
            if isinstance(event, Returned):
                yield event.value


def load_plan(experiment: str, *, recipe: str = "smoke") -> Plan:
    return make_plan(load_spec(experiment, recipe=recipe))


def get_environment(made: Iterable[Rehearsal]) -> dict[str, str]:
    """That of all of them."""
    first, *others = (dict(rehearsal.environment) for rehearsal in made)
    assert all(other == first for other in others)
    return first


def read_committed() -> list[tuple[dict[str, str], Digests]]:
    """Environments, and what cells computed there."""
    if not COMMITTED.exists():
        return []
    return [(entry["environment"], entry["traces"]) for entry in json.loads(COMMITTED.read_text())]


def write_committed(made: Iterable[Rehearsal]) -> None:
    """In place of what is committed of the same environment."""
    rehearsals = list(made)
    environment = get_environment(rehearsals)
    traces = {rehearsal.cell_id: rehearsal.digest for rehearsal in sorted(rehearsals, key=lambda one: one.cell_id)}
    others = [entry for entry in read_committed() if entry[0] != environment]
    entries = sorted([*others, (environment, traces)], key=lambda entry: json.dumps(entry[0], sort_keys=True))
    content = [{"environment": place, "traces": digests} for place, digests in entries]
    COMMITTED.parent.mkdir(parents=True, exist_ok=True)
    COMMITTED.write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    from harness.files import temporary_folder

    with temporary_folder() as folder:
        rehearsals = Rehearsals(folder, workers=2)
        found = {
            cell_id: made
            for experiment in EXPERIMENTS
            for cell_id, made in rehearsals.rehearse(load_plan(experiment)).items()
        }
    assert all(made.digest for made in found.values()), [made for made in found.values() if not made.digest]
    write_committed(found.values())


if __name__ == "__main__":
    main()
