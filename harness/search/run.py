"""Executes a search: trials as runs of one invocation, then the winner retrained beside other rows."""

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.attestation import Digests
from harness.data import check_data
from harness.engines.engine import Engine
from harness.errors import SpecError
from harness.execution.events import EpochEnded, Event, RunEnded, RunStarted, TableWritten
from harness.execution.invocation import Invocation
from harness.execution.ledger import Digester
from harness.execution.plan import RunOptions, check_files, check_results, guarded, run_plan
from harness.execution.rehearsals import Rehearser
from harness.execution.setup import Setup
from harness.plan import Plan, PlannedRun, add_rows, make_plan
from harness.provenance import collect
from harness.record import Record, RunStatus
from harness.report.files import name_folder
from harness.search.controls import judge_controls, plan_controls
from harness.search.events import (
    SearchEnded,
    SearchEvent,
    StudyOpened,
    TrialEnded,
    TrialEpochEnded,
    TrialInterrupted,
    TrialStarted,
)
from harness.search.report import WinnerTables, describe_values, to_description, write_report
from harness.search.space import make_space
from harness.search.spec import WINNER, SearchSpec
from harness.search.storage import show_storage
from harness.search.study import OpenTrial, Study
from harness.search.trial import TrialResult
from harness.tasks import TASKS, find_measure
from harness.tracking import Tracker


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Attributes:
        storage: storage of the study, from `find_storage`.
        results: the folder of reports and tables.
        data_dir: the folder of datasets that do not ship with the package.
        minutes: time after which no more trials are started; None: no limit.
        command: the command line of the user.
    """

    storage: str
    results: Path
    data_dir: Path | None = None
    minutes: float | None = None
    command: str = "harness search"


def run_search(
    spec: SearchSpec, *, tracker: Tracker, engine: Engine, options: SearchOptions
) -> Generator[SearchEvent, None, None]:
    """Execute trials and yield events; closing the iterator leaves open trials to the next call.

    Raises:
        SpecError: the task lacks a package.
        DataError: the dataset is missing or cannot give what the recipe asks for.
        StoreError: the store, the study's storage, or the folder of the report cannot be used.
    """
    space, experiment = make_space(spec), spec.to_experiment()
    TASKS[spec.recipe.data.task].check_packages()
    check_data(spec.recipe.data, spec.recipe.training, data_dir=options.data_dir)
    check_results(options.results / name_folder(experiment) / spec.name, "trials")
    check_files(spec.recipe.data, options.data_dir)
    tracker.prepare(spec.name, measure=find_measure(spec))
    closed = tracker.close_dead_runs()
    study = Study(space, options.storage)
    yield StudyOpened(study.name, show_storage(options.storage), spec.study.trials, study.ended(), len(closed))
    digests: dict[str, Digests] = {}
    setup = Setup(experiment, tracker, engine, collect(threads=engine.threads), digests, options.data_dir)
    with closing(Invocation(setup, options.command, Rehearser(setup), tests=False)) as invocation:
        yield from _Trials(study, tracker, invocation, digests, options).run()
        with guarded(options.results):
            files = write_report(study, options.results)
        invocation.finish(files, to_description(study))
    yield SearchEnded(study.is_complete, study.find_best(), files)


def run_comparison(
    spec: SearchSpec, plan: Plan, *, tracker: Tracker, engine: Engine, options: SearchOptions
) -> Generator[Event, None, None]:
    """Execute the plan of `plan_comparison` and add its table to the search's report.

    Raises:
        DataError, StoreError: as `run_plan`.
    """
    settings = RunOptions(options.results, options.data_dir, command=options.command)
    for event in run_plan(plan, tracker=tracker, engine=engine, options=settings):
        if isinstance(event, TableWritten):
            study = Study(make_space(spec), options.storage)
            controls = judge_controls(study.space, event.results.replicates)
            tables = WinnerTables(event.results.grid, controls, plan.skipped)
            with guarded(options.results):
                files = write_report(study, options.results, winner=tables)
            yield replace(event, files=(*event.files, *files))
        else:
            yield event


def plan_comparison(spec: SearchSpec, best: TrialResult) -> Plan:
    """The plan of the stated rows, the winner and its controls.

    Searched values of the recipe apply to the winner and its controls only; other rows keep those of the recipe.
    """
    space = make_space(spec)
    title = f"{spec.title}: the winner, trial {best.number}, has {describe_values(best.values)}"
    stated = make_plan(spec.to_experiment().model_copy(update={"title": title}), is_derived=True)
    return add_rows(stated, [space.find_cell(WINNER, best.values), *plan_controls(space, best.values)])


@dataclass
class _Trials:
    """The trials of one call, between the study and the engine."""

    study: Study
    tracker: Tracker
    invocation: Invocation
    digests: dict[str, Digests]
    options: SearchOptions
    _open: dict[str, OpenTrial] = field(default_factory=dict, init=False)
    _pruned: set[str] = field(default_factory=set, init=False)
    _waiting: list[SearchEvent] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._digester = Digester(self.options.data_dir)

    def run(self) -> Iterator[SearchEvent]:
        """Yield the events of trials, including trials whose runs are already in the store."""
        try:
            with closing(self.invocation.train(self._ask())) as events:
                for event in events:
                    yield from self._take_waiting()
                    match event:
                        case RunStarted():
                            continue
                        case EpochEnded():
                            yield self._report(event)
                        case RunEnded() if self._is_left(event.record):
                            number = self._open.pop(event.record.row).number
                            yield TrialInterrupted(number, event.record.status_detail)
                        case RunEnded():
                            yield TrialEnded(self._tell(event.record, is_reused=False))
            yield from self._take_waiting()
        finally:
            self._report_rest()

    def _report_rest(self) -> None:
        """Report trials to the study that had ended when the iterator was closed."""
        for record in self.invocation.records:
            if record.row in self._open and not self._is_left(record):
                self._tell(record, is_reused=False)

    def _ask(self) -> Iterator[PlannedRun]:
        """Yield the run of a new trial whenever the engine has room for one."""
        minutes = self.options.minutes
        deadline = float("inf") if minutes is None else time.monotonic() + 60 * minutes
        while time.monotonic() < deadline:
            trial = self.study.ask()
            if trial is None:
                return
            run = self._start(trial)
            if run is not None:
                yield run

    def _start(self, trial: OpenTrial) -> PlannedRun | None:
        """The run of a trial; None if the trial ends at once, because its run is stored or its point is impossible."""
        spec = self.study.spec
        try:
            row = self.study.space.find_cell(f"trial {trial.number}", trial.values)
        except SpecError as error:
            self._waiting.append(TrialEnded(self.study.end_impossible(trial, str(error))))
            return None
        run, epochs = PlannedRun(row, spec.study.seed), row.cell.training.total_epochs
        self._waiting.append(TrialStarted(trial.number, trial.values, epochs, trial.is_resumed))
        self._open[row.name] = trial
        self.digests[run.row.cell.id] = self._digester.digest(run.row.cell)
        entry = self.invocation.look_up(run)
        if not entry.standing.has_result:
            return run
        assert entry.record is not None
        self.invocation.copy([entry])
        self._waiting.append(TrialEnded(self._tell(replace(entry.record, row=row.name), is_reused=True)))
        return None

    def _report(self, event: EpochEnded) -> TrialEpochEnded:
        name, epochs = event.run.row.name, event.run.row.cell.training.total_epochs
        is_last = event.epoch.epoch == epochs
        if self.study.report(self._open[name], event.epoch) and not is_last and name not in self._pruned:
            self._pruned.add(name)
            self.invocation.stop(event.run, f"pruned after epoch {event.epoch.epoch}")
        return TrialEpochEnded(self._open[name].number, event.epoch, epochs)

    def _is_left(self, record: Record) -> bool:
        """Whether a run was interrupted, but not by the pruner, so that its trial stays open for the next call."""
        return record.status == RunStatus.INTERRUPTED and record.row not in self._pruned

    def _tell(self, record: Record, *, is_reused: bool) -> TrialResult:
        is_pruned = record.row in self._pruned and record.status == RunStatus.INTERRUPTED
        result = self.study.tell(self._open[record.row], record, is_reused=is_reused, is_pruned=is_pruned)
        del self._open[record.row]
        return result

    def _take_waiting(self) -> Iterator[SearchEvent]:
        while self._waiting:
            yield self._waiting.pop(0)
