"""`harness status`: the progress of every experiment."""

import shlex
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.attestation import Digests, Standing
from harness.commands.estimate import Estimator, to_duration
from harness.errors import DataError, SpecError
from harness.execution.adoption import list_unadopted
from harness.execution.ledger import Digester, Entry, enter, find_rehearsals
from harness.plan import Plan, make_plan
from harness.project import find_root
from harness.reading import find_experiments, is_search, list_experiments, load_spec
from harness.record import Record, RunStatus
from harness.table.reason import explain, find_cause, name_outcome
from harness.text import NOTHING, count_noun
from harness.tracking import StoredRun, Tracker

STATES = ("done", "running", "resumable", "failed", "stale", "open")
"""Every run is in one of them; `open`: never tried, interrupted, or beyond a limit that is wider now."""

_LEGEND = """\
resumable: continues from its checkpoint; failed: by a bug; stale: of older code or data; open: not
yet tried, interrupted, or beyond a limit that is wider now. time left: an estimate for all that is
not done, from the seconds that the same cells took (*: some from the cells most like them, on the
same data and schedule), spread over the recipe's workers; —: nothing like it was ever trained"""

MAX_UNCOUNTED = 5
"""Experiments that are named at most."""

Key = tuple[str, int]
"""Cell id and seed."""


@dataclass(frozen=True)
class RunState:
    """A planned run, or a stored run that belongs to no known plan.

    Attributes:
        state: one of `STATES`.
        standing: whether the result is valid under today's code and data; empty if unknown.
        standing_reason: why the result cannot be attested.
        run_id: the id of the stored run; empty if there is none, or if only the record file has the run.
        status: the status of the stored run; `running` until it ends.
        outcome: the status in words, such as `diverged at step 412` or, for a score at chance, `at chance`.
        reason: why there is no measurement, or why the measurement is doubtful.
        cause: the numbers that were not finite, or `chance`; see `harness.errors.Cause`.
        step: the step of a divergence.
        module: the first module with a gradient or weight that is not finite.
        epoch: the number of epochs of a resumable run that have ended.
    """

    row: str
    seed: int
    cell_id: str
    state: str
    run_id: str = ""
    status: str = ""
    outcome: str = ""
    reason: str = ""
    cause: str = ""
    step: int | None = None
    module: str = ""
    epoch: int | None = None
    standing: str = ""
    standing_reason: str = ""


@dataclass(frozen=True)
class ExperimentStatus:
    """The progress of an experiment under a recipe.

    Attributes:
        is_planned: whether its file is known; otherwise the runs are those that the store has.
        seconds_left: time until all runs are done, with the workers of the recipe; None if unknown.
        is_measured: whether this time was measured on the same cells, not on similar ones.
        problem: why it cannot be planned, or why stale runs cannot be identified.
    """

    experiment: str
    recipe: str
    overrides: tuple[str, ...]
    is_planned: bool
    runs: tuple[RunState, ...]
    seconds_left: float | None = None
    is_measured: bool = False
    problem: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """The number of runs in each state."""
        counted = Counter(run.state for run in self.runs)
        return {state: counted[state] for state in STATES}

    def to_plain(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {**vars(self), "counts": self.counts}


def read_status(
    tracker: Tracker,
    paths: Sequence[Path] = (),
    *,
    results: Path,
    recipe: str | None = None,
    data_dir: Path | None = None,
    shipped: bool = False,
    everything: bool = False,
) -> list[ExperimentStatus]:
    """The experiments at `paths`; without any, those of the project and the shipped ones that the store has runs of.

    Runs of an experiment's record file count as if they were in the store; nothing is stored.

    Args:
        tracker: the store of runs.
        paths: files or names of shipped experiments.
        results: the folder of the tables, whose record files are read.
        recipe: replaces the recipe of each experiment. By default, an experiment has one line for each recipe with
            runs.
        data_dir: the folder of datasets that do not ship with the package.
        shipped: whether shipped experiments without runs are listed.
        everything: whether all other experiments of the store are listed too, which takes as long as to read all runs.

    Raises:
        SpecError: a mistake in one of `paths`.
        StoreError: the store cannot be used, or a record file is damaged.
    """
    stored, plans, broken = list[StoredRun](), list[Plan](), list[ExperimentStatus]()
    if paths:
        plans = [make_plan(load_spec(path, recipe=recipe)) for path in paths]
    else:
        listed, known = _find_files(tracker.list_experiments(), shipped=shipped)
        stored = tracker.find_runs(experiments=None if everything else known)
        plans, broken = _make_plans(stored, listed, known, recipe)
    of_cells = tracker.find_runs_of(row.cell.id for plan in plans for row in plan.rows)
    stored = list({run.run_id: run for run in (*stored, *of_cells)}.values())
    stored.sort(key=lambda run: run.started, reverse=True)
    survey = _Survey(stored, plans, tracker, results, data_dir)
    statuses = [*(survey.judge(plan) for plan in plans), *broken]
    return statuses if paths else [*statuses, *_group_others(stored, statuses, recipe)]


def list_uncounted(tracker: Tracker, statuses: Iterable[ExperimentStatus]) -> list[str]:
    """The other experiments of the store."""
    return sorted(set(tracker.list_experiments()) - {status.experiment for status in statuses})


def _find_files(names: Collection[str], *, shipped: bool) -> tuple[dict[str, Path], dict[str, Path]]:
    """The experiments that are listed run or not, and all that have a file; `names` are those of the store."""
    root, ours = find_root(), list_experiments()
    files = {name: root / f"{name}.yaml" for name in names}
    beside = {name: path for name, path in files.items() if path.is_file() and not is_search(path)}
    listed = {**(ours if shipped else {}), **beside, **find_experiments(root / "experiments")}
    return listed, {**ours, **listed}


def _make_plans(
    stored: Sequence[StoredRun], listed: Collection[str], known: Mapping[str, Path], recipe: str | None
) -> tuple[list[Plan], list[ExperimentStatus]]:
    """The plans of known experiments under their own recipes and those with runs; experiments with errors."""
    names = {run.experiment for run in stored}
    plans: dict[tuple[str, str], Plan] = {}
    broken = []
    for name, path in known.items():
        used = [] if recipe else [run.recipe for run in stored if run.experiment == name and not run.overrides]
        choices = [recipe, *used] if name in listed or (recipe and name in names) else used
        for choice in dict.fromkeys(choices):
            try:
                plan = make_plan(load_spec(path, recipe=choice))
            except SpecError as error:
                broken.append(ExperimentStatus(name, choice or "", (), is_planned=False, runs=(), problem=str(error)))
            else:
                plans.setdefault((name, plan.spec.recipe.name), plan)
    return list(plans.values()), broken


class _Survey:
    """Compares all runs of the store, and those of each plan's record file, with one plan after the other."""

    def __init__(
        self, stored: Iterable[StoredRun], plans: Sequence[Plan], tracker: Tracker, results: Path, data_dir: Path | None
    ) -> None:
        self._tracker = tracker
        self._digester = Digester(data_dir)
        self._runs = [run for run in stored if not run.reused_from]
        known = {run.origin for run in self._runs if run.record is not None}
        self._adopted = {_identify(plan): list_unadopted(plan, known, results) for plan in plans}
        self._estimator = Estimator((row.cell for plan in plans for row in plan.rows), self._list_seconds())

    def judge(self, plan: Plan) -> ExperimentStatus:
        ids = {row.cell.id for row in plan.rows}
        mine = [run for run in self._runs if run.cell_id in ids]
        found = [*(run.record for run in mine), *(run.record for run in self._adopted[_identify(plan)])]
        records = sorted((record for record in found if record is not None), key=lambda record: -record.end_time)
        tried = {run.cell_id for run in mine} | {record.cell_id for record in records}
        digests, problem = self._find_digests(plan, tried)
        live = {(run.cell_id, run.seed): run for run in mine if run.is_live}
        rehearsals = find_rehearsals(records, digests, self._tracker)
        entries = enter(plan, records, digests, rehearsals, checkpoints=self._tracker.checkpoints)
        runs = tuple(_to_state(entry, live) for entry in entries)
        seconds, is_measured = self._estimate(plan, runs, live)
        name, recipe, overrides = plan.spec.name, plan.spec.recipe.name, plan.spec.overrides
        return ExperimentStatus(name, recipe, overrides, True, runs, seconds, is_measured, problem)

    def _list_seconds(self) -> dict[str, list[float]]:
        """The durations of all runs that ended well, by cell."""
        adopted = {run.origin: run.record for runs in self._adopted.values() for run in runs}
        measured: dict[str, list[float]] = {}
        for record in (*(run.record for run in self._runs), *adopted.values()):
            if record is not None and record.status == RunStatus.OK and "seconds" in record.metrics:
                measured.setdefault(record.cell_id, []).append(record.metrics["seconds"])
        return measured

    def _find_digests(self, plan: Plan, tried: Collection[str]) -> tuple[dict[str, Digests], str]:
        """The digests of the cells that have runs: only these can be stale."""
        cells = {row.cell.id: row.cell for row in plan.rows if row.cell.id in tried}
        try:
            return self._digester.digest_all(cells.values()), ""
        except DataError as error:
            return {}, f"stale runs cannot be identified: {error}"

    def _estimate(
        self, plan: Plan, runs: Iterable[RunState], live: Mapping[Key, StoredRun]
    ) -> tuple[float | None, bool]:
        """The seconds until all runs are done, and whether they were measured on the same cells."""
        cells = {row.cell.id: row.cell for row in plan.rows}
        missing = {(run.cell_id, run.seed) for run in runs if run.state != "done"}
        estimates = {key: self._estimator.estimate(cells[key[0]]) for key in missing}
        known = {key: estimate for key, estimate in estimates.items() if estimate is not None}
        if len(known) < len(missing):
            return None, False
        now = time.time()
        passed = {key: now - live[key].started for key in known if key in live}
        seconds = sum(max(0.0, estimate.seconds - passed.get(key, 0.0)) for key, estimate in known.items())
        workers = max(1, min(plan.spec.recipe.workers, len(missing)))
        return seconds / workers, all(estimate.is_measured for estimate in known.values())


def _identify(plan: Plan) -> tuple[str, str]:
    return plan.spec.name, plan.spec.recipe.name


def _to_state(entry: Entry, live: Mapping[Key, StoredRun]) -> RunState:
    row, seed, record = entry.run.row, entry.run.seed, entry.record
    cell_id, running = row.cell.id, live.get((row.cell.id, seed))
    if running is not None and not entry.standing.has_result:
        return RunState(row.name, seed, cell_id, "running", running.run_id, "running")
    if record is None:
        return RunState(row.name, seed, cell_id, "open")
    failed = record.status == RunStatus.FAILED
    missing = {
        Standing.STALE: "stale",
        Standing.UNDECIDED: "stale",
        Standing.FAILED: "failed",
        Standing.RESUMABLE: "resumable",
        Standing.TO_DO: "failed" if failed else "open",
    }
    state = "done" if entry.standing.has_result else missing[entry.standing]
    planned = RunState(row.name, seed, cell_id, state, record.run_id or "")
    if entry.checkpoint is not None:
        planned = replace(_to_ended(planned, record), outcome=f"continues {entry.checkpoint.place}", reason="")
        return replace(planned, epoch=entry.checkpoint.epoch, standing=entry.standing.value)
    return replace(_to_ended(planned, record), standing=entry.standing.value, standing_reason=entry.reason)


def _to_ended(state: RunState, record: Record) -> RunState:
    return replace(
        state,
        status=record.status.value,
        outcome=name_outcome(record),
        reason=explain(record),
        cause=find_cause(record),
        step=record.step,
        module=record.module,
    )


def _group_others(
    stored: Iterable[StoredRun], known: Iterable[ExperimentStatus], recipe: str | None
) -> Iterator[ExperimentStatus]:
    """The experiments whose files are unknown, and those with `--set`, from the runs in the store only."""
    planned = {(status.experiment, status.recipe, status.overrides) for status in known}
    groups: dict[tuple[str, str, tuple[str, ...]], dict[Key, RunState]] = {}
    results: dict[Key, StoredRun] = {}
    for run in stored:  # newest first
        key, place = (run.experiment, run.recipe, run.overrides), (run.cell_id, run.seed)
        if run.record is not None and run.record.status.is_result:
            results.setdefault(place, run)
        if key not in planned and recipe in (None, run.recipe):
            repaired = run if run.record is None else results.get(place, run)  # by a later run, of any experiment
            groups.setdefault(key, {}).setdefault(place, replace(_to_stored_state(repaired), row=run.row))
    for (experiment, used, overrides), runs in sorted(groups.items()):
        yield ExperimentStatus(experiment, used, overrides, False, tuple(runs.values()))


def _to_stored_state(run: StoredRun) -> RunState:
    record = run.record
    if record is None:
        state = "running" if run.is_live else "open"
        return RunState(run.row, run.seed, run.cell_id, state, run.run_id, "running" if run.is_live else "")
    failed = record.status == RunStatus.FAILED
    state = "done" if record.status.is_result else "failed" if failed else "open"
    return _to_ended(RunState(run.row, run.seed, run.cell_id, state, run.run_id), record)


def describe_status(statuses: Sequence[ExperimentStatus], uncounted: Sequence[str] = ()) -> str:
    """One line per experiment, then the runs that are running or failed, as text for a terminal."""
    if not statuses and not uncounted:
        return "no experiment here and no run in the store; --shipped lists the shipped experiments"
    headers = ["experiment", "recipe", "runs", *STATES, "time left"]
    aligned = ("left", "left", *["right"] * (len(headers) - 2))
    shown = [status for status in statuses if status.runs]
    table = tabulate([_to_line(status) for status in shown], headers, colalign=aligned, disable_numparse=True)
    notes = "\n".join([*_list_unplanned(shown), *(line for status in statuses for line in _to_notes(status))])
    return "\n\n".join(part for part in (table, notes, *_list_uncounted(uncounted), _LEGEND) if part)


def _to_line(status: ExperimentStatus) -> list[str]:
    counts = [str(count or "") for count in status.counts.values()]
    recipe = f"{status.recipe} +set" if status.overrides else status.recipe
    return [status.experiment, recipe, str(len(status.runs)), *counts, _to_time_left(status)]


def _to_time_left(status: ExperimentStatus) -> str:
    if status.is_planned and status.counts["done"] == len(status.runs):
        return ""
    if status.seconds_left is None:
        return NOTHING
    return f"~{to_duration(status.seconds_left)}{' ' if status.is_measured else '*'}"


def _to_name(status: ExperimentStatus) -> str:
    return " ".join(part for part in (status.experiment, status.recipe, shlex.join(status.overrides)) if part)


def _list_uncounted(names: Sequence[str]) -> Iterator[str]:
    if names:
        first, rest = ", ".join(names[:MAX_UNCOUNTED]), len(names) - MAX_UNCOUNTED
        yield (
            f"other experiments in the store: {first}{f' and {rest} more' if rest > 0 else ''}; "
            "`harness status --all` counts their runs"
        )


def _list_unplanned(statuses: Iterable[ExperimentStatus]) -> Iterator[str]:
    names = [f"  {_to_name(status)}" for status in statuses if not status.is_planned]
    if names:
        yield "\n".join(
            ["counted from the store alone (`harness status PATH` plans a file that lies elsewhere):", *names]
        )


def _to_notes(status: ExperimentStatus) -> Iterator[str]:
    name = _to_name(status)
    if status.problem:
        yield f"{name}: {status.problem}"
    attested = sum(run.standing == Standing.ATTESTED for run in status.runs)
    if attested:
        yield f"{name}: {count_noun(attested, 'run')} done by older code, attested by a rehearsal under today's"
    unattested = (run.standing_reason for run in status.runs if run.standing == Standing.UNATTESTED)
    for reason, count in Counter(unattested).items():
        yield f"{name}: {count_noun(count, 'run')} done by older code, which nothing can attest: {reason}"
    undecided = sum(run.standing == Standing.UNDECIDED for run in status.runs)
    if undecided:
        runs = count_noun(undecided, "run")
        yield f"{name}: {runs} of older code; `harness rehearse` finds out whether they are valid"
    for run in status.runs:
        is_good = run.state == "done" and run.status == RunStatus.OK and not run.reason
        if run.state in ("running", "resumable", "failed") or (run.state == "done" and not is_good):
            outcome = ": ".join(part for part in (run.outcome or run.state, run.reason) if part)
            hint = f" (harness show {run.run_id[:8]})" if run.run_id else ""
            yield f"{name}: {run.row} seed {run.seed} {outcome}{hint}"
