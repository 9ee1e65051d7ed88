"""The rehearsals of a plan: which cells need one, and what they tell of the runs that follow."""

import heapq
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from statistics import median

from harness.attestation import Digests, Standing
from harness.engines.engine import Returned
from harness.environment import ENVIRONMENT
from harness.execution.context import execute_rehearsal
from harness.execution.events import Event, Forecast, RehearsalEnded
from harness.execution.ledger import Entry
from harness.execution.setup import Setup
from harness.plan import Plan, PlannedRun
from harness.record import RunStatus
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
    for made in tracker.read_rehearsals(row.cell.id for row in plan.rows):  # newest first
        is_current = (made.code_digest, made.data_digest) == digests.get(made.cell_id)
        is_near = all(made.environment.get(name) == provenance.get(name) for name in KNOWN)
        if made.digest and is_current and is_near:
            known = chosen.get(made.cell_id)
            if known is None or made.seed < known.seed:
                chosen[made.cell_id] = made
    return chosen


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


def forecast(
    runs: Sequence[PlannedRun], known: Mapping[str, Rehearsal], entries: Iterable[Entry], *, workers: int
) -> Iterator[Forecast]:
    """What the runs take on so many workers, short ones left out; nothing where a cell has no rehearsal.

    A cell of which the plan has results takes as long as these did, any other as long as its rehearsal expects.
    """
    cell_ids = [run.row.cell.id for run in runs if not is_short(run.row.cell)]
    rehearsals = [known.get(cell_id) for cell_id in cell_ids]
    metrics = [made.metrics for made in rehearsals if made is not None and "seconds" in made.metrics]
    if len(metrics) < len(cell_ids) or not metrics:
        return
    measured = _list_measured(entries)
    forecasts = [each["seconds"] for each in metrics]
    expected = [median(measured.get(cell_id, [one])) for cell_id, one in zip(cell_ids, forecasts, strict=True)]
    yield Forecast(_schedule(expected, workers), max(each["peak_memory_gb"] for each in metrics))


def _list_measured(entries: Iterable[Entry]) -> dict[str, list[float]]:
    """The seconds of the runs that stand and were measured, by cell."""
    measured: dict[str, list[float]] = {}
    for entry in entries:
        if entry.record is not None and entry.standing.has_result and entry.record.status == RunStatus.OK:
            measured.setdefault(entry.record.cell_id, []).append(entry.record.metrics["seconds"])
    return measured


def _schedule(seconds: Iterable[float], workers: int) -> float:
    """When the last of some jobs ends, each started in order as soon as a worker is free."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)
