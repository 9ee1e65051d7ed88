"""Trials as runs: a real store, a real journal, an engine that knows what every trial measures."""

import re
from collections import Counter
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from harness.engines.engine import Event, Job, Message, Returned, Started, Stopped
from harness.execution.context import execute_rehearsal
from harness.execution.open_run import Measured, Opened, OpenRun
from harness.plan import PlannedRun
from harness.record import EpochMetrics, Record, RunStatus
from harness.search import SearchEnded, SearchEvent, TrialEnded, TrialStarted, load_search
from harness.search.controls import judge_controls
from harness.search.run import SearchOptions, plan_comparison, run_comparison, run_search
from harness.search.space import make_space
from harness.search.spec import WINNER
from harness.search.trial import TrialResult, TrialState
from harness.table import make_results
from harness.tracking import MlflowTracker
from tests.rehearsals import play_rehearsal

SEARCH = """\
title: A small search
recipe: smoke
baseline: ELSA
rows:
  ELSA: {stages: {not_last: {preset: elsa}}}
seeds: 1
search:
  ghost_lambda: {low: 0, high: 3, stages: not_last}
  ghost_gamma: {low: 0.01, high: 10, log: true, zero: true, stages: not_last}
controls:
  γ as a rate: {ghost_gamma: 1, ghost_rate: ghost_gamma}
  O from 1: {ghost_start: ones}
study:
  trials: 5
  pruner: median
  startup_trials: 2
  first:
    - {ghost_lambda: 0, ghost_gamma: 1}
    - {ghost_lambda: 1, ghost_gamma: 1}
    - {ghost_lambda: 0, ghost_gamma: 1}
    - {ghost_lambda: 2, ghost_gamma: 0}
    - {ghost_lambda: 3, ghost_gamma: 10}
"""
"""The third trial repeats the first, the fourth diverges, the fifth is pruned."""

TOP1 = {(0.0, 1.0): 80.0, (1.0, 1.0): 85.0, (2.0, 0.0): None, (3.0, 10.0): 20.0}

pytestmark = pytest.mark.slow  # all of it looks at one search that trains


@dataclass
class PlayedEngine:
    """Ends every run at once; a cell without a number diverges."""

    workers: int = 1
    threads: int = 1
    played: list[PlannedRun] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._unwanted: set[str] = set()

    def stop(self, name: str) -> None:
        self._unwanted.add(name)

    def take_rest(self) -> list[Event]:
        return []

    def execute(self, jobs: Iterable[Job]) -> Generator[Event, None, None]:
        for job in jobs:
            if job.function is execute_rehearsal:
                yield Returned(job.name, play_rehearsal(*job.args), "")
                continue
            self.played.append(job.args[0])
            yield Started(job.name, 1)
            yield from self._play(job)

    def _play(self, job: Job) -> Generator[Event, None, None]:
        run, context = job.args
        open_run = OpenRun(run, context.spec.recipe.limits, context.provenance)
        top1 = measure(run)
        notes: list[Any] = [Opened(context.provenance, continues=False), Measured({"params": 1000.0, "macs": 5000.0})]
        for note in (*notes, *(make_epoch(number, top1 or 84.0) for number in (1, 2))):
            open_run.add(note)
            yield Message(job.name, note)
            if job.name in self._unwanted:
                yield Stopped(job.name, "")
                return
        if context.tests:
            open_run.add(Measured({"test/top1": top1 or 84.0, "test/top5": 100.0}))
        record = open_run.to_record(RunStatus.OK) if top1 else open_run.to_record(RunStatus.DIVERGED, step=17)
        yield Returned(job.name, record, "")


def measure(run: PlannedRun) -> float | None:
    operator = run.row.cell.attention[0] if run.row.cell.attention else None
    return 50.0 if operator is None else TOP1[operator.ghost_lambda, operator.ghost_gamma]


def make_epoch(number: int, top1: float) -> EpochMetrics:
    metrics = {"val/top1": top1, "train/loss": 1.0, "train/images_per_second": 100.0}
    return EpochMetrics(number, 10 * number, metrics)


@dataclass
class Searched:
    """A search that was killed in its second trial and went on."""

    folder: Path
    tracker: MlflowTracker
    engine: PlayedEngine = field(default_factory=PlayedEngine)
    events: list[SearchEvent] = field(default_factory=list)

    @property
    def options(self) -> SearchOptions:
        return SearchOptions(str(self.folder / "optuna.journal"), self.folder / "results")

    @property
    def trial_results(self) -> list[TrialResult]:
        return [event.result for event in self.events if isinstance(event, TrialEnded)]

    @property
    def ended(self) -> SearchEnded:
        (ended,) = (event for event in self.events if isinstance(event, SearchEnded))
        return ended

    def search(self, *, until: int | None = None) -> None:
        spec = load_search(self.folder / "small_search.yaml", overrides=["training.epochs=2"])
        events = run_search(spec, tracker=self.tracker, engine=self.engine, options=self.options)
        for event in events:
            if isinstance(event, TrialStarted) and event.number == until:
                break
            self.events.append(event)
        events.close()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, ready_database: Path) -> Searched:
    folder = tmp_path_factory.mktemp("searched")
    (folder / "mlflow.db").write_bytes(ready_database.read_bytes())
    (folder / "small_search.yaml").write_text(SEARCH)
    search = Searched(folder, MlflowTracker(f"sqlite:///{folder / 'mlflow.db'}"))
    search.search(until=1)
    search.search()
    return search


def test_no_trial_is_lost_or_counted_twice(searched: Searched) -> None:
    assert [result.number for result in searched.trial_results] == [0, 1, 2, 3, 4]
    assert searched.ended.is_complete
    starts = [event for event in searched.events if isinstance(event, TrialStarted)]
    assert [event.number for event in starts if event.is_resumed] == [1]


def test_every_trial_is_a_run_of_the_stated_replicate_under_a_parent(searched: Searched) -> None:
    assert {run.seed for run in searched.engine.played} == {1000}
    client = MlflowClient(searched.tracker.store.uri)
    runs = {result.number: client.get_run(result.run_id) for result in searched.trial_results}
    assert {number: run.data.params["row"] for number, run in runs.items()} == {
        **{number: f"trial {number}" for number in (0, 1, 3, 4)},
        2: "trial 0",
    }
    parents = [client.get_run(run.data.tags["mlflow.parentRunId"]) for run in runs.values()]
    assert {parent.data.tags["kind"] for parent in parents} == {"invocation"}
    artifacts = {file.path for file in client.list_artifacts(parents[-1].info.run_id)}
    assert {"report.html", "trials.csv", "surface.png", "surface.svg"} <= artifacts


def test_no_trial_sees_the_test_set(searched: Searched) -> None:
    client = MlflowClient(searched.tracker.store.uri)
    metrics = [client.get_run(result.run_id).data.metrics for result in searched.trial_results]
    assert all("val/top1" in found for found in metrics)
    assert not [name for found in metrics for name in found if name.startswith("test/")]


def test_a_cell_that_is_stored_is_not_trained_again(searched: Searched) -> None:
    trained = Counter(run.row.name for run in searched.engine.played)
    assert "trial 2" not in trained
    assert [result.is_reused for result in searched.trial_results] == [False, False, True, False, False]
    assert searched.trial_results[2].objectives == searched.trial_results[0].objectives == {"val": 80.0}


def test_what_has_no_measurement_is_told_with_its_reason(searched: Searched) -> None:
    diverged, pruned = searched.trial_results[3:]
    assert (diverged.state, diverged.reason) == (TrialState.FAILED, "diverged at step 17")
    assert (pruned.state, pruned.reason) == (TrialState.PRUNED, "pruned after epoch 1")
    run = MlflowClient(searched.tracker.store.uri).get_run(pruned.run_id)
    assert (run.data.tags["status"], run.data.tags["status_detail"]) == ("interrupted", "pruned after epoch 1")


def test_the_report_needs_no_other_file(searched: Searched) -> None:
    page, *files = searched.ended.files
    text = page.read_text()
    assert re.findall("<h2>(.*?)</h2>", text) == [
        "Best trial",
        "History",
        "Response surface",
        "Parallel coordinates",
        "Trials",
    ]
    assert not re.search(r"(src|href)=.(?!#|data:)", text)
    assert Counter(path.suffix for path in files) == {".csv": 1, ".png": 3, ".svg": 3}


def test_the_winner_is_retrained_beside_the_stated_rows_with_seeds_of_their_own(searched: Searched) -> None:
    spec, engine = load_search(searched.folder / "small_search.yaml", overrides=["training.epochs=2"]), PlayedEngine()
    assert searched.ended.best is not None
    plan = plan_comparison(spec, searched.ended.best)
    *_, written = run_comparison(spec, plan, tracker=searched.tracker, engine=engine, options=searched.options)
    assert {(run.row.name, run.seed) for run in engine.played if not run.row.is_floor} == {
        (name, 0) for name in ("ELSA", WINNER, "O from 1")
    }
    assert next(row for row in plan.rows if row.name == WINNER).cell.id == searched.trial_results[1].cell_id
    (text,) = (path.read_text() for path in written.files if path.suffix == ".md")
    assert "the winner, trial 1, has ghost_lambda = 1, ghost_gamma = 1" in text
    (page,) = {path for path in written.files if path.name == "report.html"}
    assert re.findall("<h2>(.*?)</h2>", page.read_text())[1:3] == ["The winner on the test set", "Beyond rescaling"]
    controls = pd.read_csv(page.with_name("controls.csv")).set_index("control")
    assert list(controls["pairs"]) == [1, 1]
    assert controls["verdict"].isna().all()  # of one seed


@pytest.mark.parametrize(
    ("status", "images", "expected"),
    [
        (RunStatus.OK, "", [(4, "better")]),
        (RunStatus.DIVERGED, "", [(3, "unresolved")]),
        (RunStatus.OK, "other", []),
    ],
    ids=["all", "thinned", "other images"],
)
def test_a_control_is_judged_as_a_row_of_a_table_is(
    searched: Searched, status: RunStatus, images: str, expected: list[tuple[int, str]]
) -> None:
    spec = load_search(searched.folder / "small_search.yaml", overrides=["seeds=4"])
    assert searched.ended.best is not None
    plan = plan_comparison(spec, searched.ended.best)
    records = [
        Record(
            run.row.cell.id,
            run.row.name,
            run.seed,
            status if is_control and run.seed == 3 else RunStatus.OK,
            metrics={"test/top1": (80.0 if is_control else 82.0) + 0.1 * run.seed * run.seed * is_control},
            provenance={"code_digest": "c0de", "data_digest": "da7a" + images * is_control},
        )
        for run in plan.runs
        for is_control in [run.row.name == "O from 1"]
    ]
    judged = judge_controls(make_space(spec), make_results(plan, records).replicates)
    found = judged[judged["control"] == "O from 1"]
    assert list(zip(found["pairs"], found["verdict"], strict=True)) == expected


def test_a_control_that_the_winner_makes_impossible_is_skipped_with_its_reason(searched: Searched) -> None:
    spec, best = load_search(searched.folder / "small_search.yaml"), searched.trial_results[1]
    plan = plan_comparison(spec, replace(best, values={"ghost_lambda": 1.0, "ghost_gamma": 0.0}))
    assert [(row.name, "ghost_rate" in row.reason) for row in plan.skipped] == [("γ as a rate", True)]
    table = make_results(plan, []).frame
    assert list(table["row"])[:4] == ["ELSA", WINNER, "γ as a rate", "O from 1"]


def test_a_time_limit_starts_no_further_trial(searched: Searched, tmp_path: Path) -> None:
    spec = load_search(searched.folder / "small_search.yaml")
    options = SearchOptions(str(tmp_path / "optuna.journal"), tmp_path / "results", minutes=1e-9)
    *_, ended = run_search(spec, tracker=searched.tracker, engine=PlayedEngine(), options=options)
    assert isinstance(ended, SearchEnded)
    assert (ended.is_complete, ended.best) == (False, None)
