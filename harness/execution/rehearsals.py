"""The rehearsals of a plan: which cells need one, and what they tell of the runs that follow."""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from harness.attestation import Digests, Standing
from harness.environment import ENVIRONMENT
from harness.execution.events import Forecast
from harness.execution.ledger import Entry
from harness.plan import Plan, PlannedRun
from harness.record import RunStatus
from harness.trace import TRACED_SEED, Rehearsal, is_short
from harness.tracking import Tracker

KNOWN = tuple(name for name in ENVIRONMENT if name not in ("device", "instructions"))
"""Of an environment what is known without torch."""


def list_undecided(entries: Iterable[Entry]) -> tuple[PlannedRun, ...]:
    """The replicates whose rehearsal would tell whether a result of older code stands, each once."""
    found: dict[tuple[str, int], PlannedRun] = {}
    for entry in entries:
        if entry.standing == Standing.UNDECIDED and entry.record is not None:
            seed = int(entry.record.provenance[TRACED_SEED])
            found.setdefault((entry.record.cell_id, seed), PlannedRun(entry.run.row, seed))
    return tuple(found.values())


def find_stored(
    plan: Plan, tracker: Tracker, digests: Mapping[str, Digests], provenance: Mapping[str, str]
) -> dict[str, Rehearsal]:
    """By cell, the newest rehearsal by today's code in an environment like this one, as far as that is known.

    Of several replicates it is the first. A run compares the rest of the environment before it takes the trace.
    """
    found = [
        made
        for made in tracker.read_rehearsals(row.cell.id for row in plan.rows)
        if made.digest
        and (made.code_digest, made.data_digest) == digests[made.cell_id]
        and all(made.environment.get(name) == provenance.get(name) for name in KNOWN)
    ]
    chosen: dict[str, Rehearsal] = {}
    for made in found:  # newest first
        if made.cell_id not in chosen or made.seed < chosen[made.cell_id].seed:
            chosen[made.cell_id] = made
    return {cell_id: replace(made, trace=tracker.read_trace(cell_id, made.digest)) for cell_id, made in chosen.items()}


def list_unrehearsed(runs: Iterable[PlannedRun], known: Mapping[str, Rehearsal]) -> tuple[PlannedRun, ...]:
    """The first run of each cell that has no rehearsal and is longer than one."""
    first: dict[str, PlannedRun] = {}
    for run in runs:
        if run.row.cell.id not in known and not is_short(run.row.cell):
            first.setdefault(run.row.cell.id, run)
    return tuple(first.values())


def list_failed(runs: Iterable[PlannedRun], known: Mapping[str, Rehearsal]) -> tuple[PlannedRun, ...]:
    """The runs whose cell failed in its rehearsal."""
    return tuple(run for run in runs if run.row.cell.id in known and known[run.row.cell.id].status == RunStatus.FAILED)


def forecast(runs: Sequence[PlannedRun], known: Mapping[str, Rehearsal], *, workers: int) -> Iterator[Forecast]:
    """What the runs take on so many workers; nothing for short runs alone, or where one is not known."""
    rehearsals = [known.get(run.row.cell.id) for run in runs]
    metrics = [made.metrics for made in rehearsals if made is not None and "seconds" in made.metrics]
    if len(metrics) < len(runs) or all(is_short(run.row.cell) for run in runs):
        return
    seconds = _schedule([each["seconds"] for each in metrics], workers)
    yield Forecast(seconds, max(each["peak_memory_gb"] for each in metrics))


def _schedule(seconds: Iterable[float], workers: int) -> float:
    """When the last of some jobs ends, each started in order as soon as a worker is free."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)
