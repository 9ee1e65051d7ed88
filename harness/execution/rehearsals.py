"""The rehearsals of a plan: which cells need one, and what they tell of the runs that follow."""

import heapq
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from statistics import median

from harness.attestation import Digests, Standing
from harness.cell import Cell
from harness.division import divide_batch
from harness.engines.engine import Returned
from harness.environment import ENVIRONMENT, STEP, describe_step
from harness.execution.context import execute_rehearsal
from harness.execution.events import Event, Forecast, RehearsalEnded
from harness.execution.ledger import Entry
from harness.execution.setup import Setup
from harness.plan import Plan, PlannedRun
from harness.record import RunStatus
from harness.spec import RecipeSpec
from harness.trace import TRACED_SEED, Rehearsal, is_short
from harness.tracking import Tracker

KNOWN = tuple(name for name in ENVIRONMENT if name not in ("device", "instructions"))
"""Of an environment what is known without torch."""


@dataclass
class Rehearser:
    """Rehearses cells through an engine, and stores every rehearsal that ends.

    Attributes:
        known: the rehearsals of today's code, by cell id; of several replicates the first.
    """

    setup: Setup
    known: dict[str, Rehearsal] = field(default_factory=dict)

    def rehearse(self, runs: Iterable[PlannedRun]) -> Generator[Event, None, None]:
        """Rehearse the cells of runs, each with the replicate of its run.

        A rehearsal whose process is killed leaves nothing: its run reports why.
        """
        listed = {str(number): run for number, run in enumerate(runs)}
        make_job, make_context = self.setup.make_job, self.setup.make_context
        jobs = [make_job(name, execute_rehearsal, run, make_context(run)) for name, run in listed.items()]
        with closing(self.setup.engine.execute(jobs)) as events:
            for event in events:
                if isinstance(event, Returned):
                    rehearsal: Rehearsal = event.value
                    self.keep(listed[event.name], rehearsal)
                    yield RehearsalEnded(listed[event.name], rehearsal)

    def keep(self, run: PlannedRun, rehearsal: Rehearsal) -> None:
        """Store a rehearsal."""
        known = self.known.get(rehearsal.cell_id)
        if known is None or rehearsal.seed <= known.seed:
            self.known[rehearsal.cell_id] = rehearsal
        self.setup.tracker.log_rehearsal(rehearsal, run.row.name)


def list_undecided(entries: Iterable[Entry]) -> tuple[PlannedRun, ...]:
    """The replicates whose rehearsal would tell whether a result of older code stands, each once."""
    found: dict[tuple[str, int], PlannedRun] = {}
    for entry in entries:
        if entry.standing == Standing.UNDECIDED and entry.record is not None:
            seed = int(entry.record.provenance[TRACED_SEED])
            found.setdefault((entry.record.cell_id, seed), PlannedRun(entry.run.row, seed))
    return tuple(found.values())


def list_stored(
    plan: Plan, tracker: Tracker, digests: Mapping[str, Digests], provenance: Mapping[str, str]
) -> dict[str, Rehearsal]:
    """By cell, the newest rehearsal by today's code in an environment like this one, without its trace.

    Of several replicates it is the first. Only that part of the environment is compared that is known without torch:
    a run compares the rest before it takes the trace.
    """
    chosen: dict[str, Rehearsal] = {}
    recipe, cells = plan.spec.recipe, {row.cell.id: row.cell for row in plan.rows}
    for made in tracker.read_rehearsals(cells):  # newest first
        is_current = (made.code_digest, made.data_digest) == digests.get(made.cell_id)
        step = _find_step(cells[made.cell_id], recipe)
        expected, names = {**provenance, **(step or {})}, KNOWN if step is None else (*KNOWN, *STEP)
        is_near = all(made.environment.get(name) == expected.get(name) for name in names)
        if made.digest and is_current and is_near:
            known = chosen.get(made.cell_id)
            if known is None or made.seed < known.seed:
                chosen[made.cell_id] = made
    return chosen


def _find_step(cell: Cell, recipe: RecipeSpec) -> dict[str, str] | None:
    """How a step will be computed; None where that depends on the number of GPUs."""
    if recipe.processes is None and recipe.device_batch_size is not None:
        return None
    division = divide_batch(
        cell.training.batch_size, device_batch_size=recipe.device_batch_size, processes=recipe.processes
    )
    return describe_step(division, recipe)


def find_stored(
    plan: Plan, tracker: Tracker, digests: Mapping[str, Digests], provenance: Mapping[str, str]
) -> dict[str, Rehearsal]:
    """The same with their traces."""
    stored = list_stored(plan, tracker, digests, provenance)
    return {cell_id: replace(made, trace=tracker.read_trace(cell_id, made.digest)) for cell_id, made in stored.items()}


def list_unrehearsed(runs: Iterable[PlannedRun], known: Mapping[str, Rehearsal]) -> tuple[PlannedRun, ...]:
    """The first run of each cell that has no rehearsal; a placebo is rehearsed as the baseline, whose cell it is."""
    first: dict[str, PlannedRun] = {}
    for run in runs:
        if run.row.cell.id not in known:
            first.setdefault(run.row.cell.id, PlannedRun(run.row, run.replicate))
    return tuple(first.values())


def list_failed(runs: Iterable[PlannedRun], known: Mapping[str, Rehearsal]) -> tuple[PlannedRun, ...]:
    """The runs whose cell failed in its rehearsal."""
    return tuple(run for run in runs if run.row.cell.id in known and known[run.row.cell.id].status == RunStatus.FAILED)


def order_runs(
    runs: Iterable[PlannedRun], known: Mapping[str, Rehearsal], entries: Iterable[Entry], *, baseline: str
) -> list[PlannedRun]:
    """The runs replicate by replicate, in each the baseline first and then the longest first.

    So stopping early leaves a balanced table, and at the end no worker has a long run alone. Runs of which nothing is
    known keep their order, after the others.
    """
    expected = _expect_seconds(known, entries)

    def get_key(run: PlannedRun) -> tuple[int, bool, float]:
        return run.replicate, run.row.name != baseline, -expected.get(run.row.cell.id, 0.0)

    return sorted(runs, key=get_key)


def forecast(
    runs: Sequence[PlannedRun], known: Mapping[str, Rehearsal], entries: Iterable[Entry], *, workers: int
) -> Iterator[Forecast]:
    """What the runs take on so many workers, short ones left out; nothing where a cell has no rehearsal."""
    cell_ids = [run.row.cell.id for run in runs if not is_short(run.row.cell)]
    expected = _expect_seconds(known, entries)
    if cell_ids and all(cell_id in expected for cell_id in cell_ids):
        seconds = _schedule((expected[cell_id] for cell_id in cell_ids), workers)
        yield Forecast(seconds, max(known[cell_id].metrics["peak_memory_gb"] for cell_id in cell_ids))


def _expect_seconds(known: Mapping[str, Rehearsal], entries: Iterable[Entry]) -> dict[str, float]:
    """By rehearsed cell: as long as its results took, or else as its rehearsal expects."""
    measured = _list_measured(entries)
    return {
        cell_id: median(measured.get(cell_id, [made.metrics["seconds"]]))
        for cell_id, made in known.items()
        if "seconds" in made.metrics
    }


def _list_measured(entries: Iterable[Entry]) -> dict[str, list[float]]:
    """The seconds of the runs that stand and were measured, by cell."""
    measured: dict[str, list[float]] = {}
    for entry in entries:
        is_valid = entry.record is not None and entry.standing.has_result and entry.record.status == RunStatus.OK
        if entry.record is not None and is_valid and "seconds" in entry.record.metrics:
            measured.setdefault(entry.record.cell_id, []).append(entry.record.metrics["seconds"])
    return measured


def _schedule(seconds: Iterable[float], workers: int) -> float:
    """When the last of some jobs ends, each started in order as soon as a worker is free."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)
