import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from harness.attestation import Standing
from harness.engines.engine import Died, Job, Message, Returned, Started, TimedOut
from harness.engines.engine import Event as EngineEvent
from harness.errors import DataError, StoreError
from harness.execution import (
    EpochEnded,
    Event,
    Planned,
    RehearsalEnded,
    Rehearsing,
    RunEnded,
    RunOptions,
    RunStarted,
    TableWritten,
    run_plan,
    write_results,
)
from harness.execution.context import RunContext, execute_rehearsal
from harness.execution.ledger import read_ledger
from harness.execution.open_run import Measured, Opened, OpenRun
from harness.plan import Plan, PlannedRun, make_plan
from harness.provenance import code_digest
from harness.record import EpochMetrics, Record, RunStatus
from harness.spec import LimitsSpec, RowSpec
from harness.tracking import MlflowTracker
from paradigms.config import TERMS
from tests.rehearsals import play_rehearsal

CURVE = tuple(
    EpochMetrics(epoch, 10 * epoch, {"val/top1": 40.0 + epoch, "train/loss": 1.0, "train/images_per_second": 100.0})
    for epoch in (1, 2)
)

Script = Callable[[PlannedRun], str]


class PlayedEngine:
    """Plays `ok`, `diverged` or `failed`, which end by themselves, or what becomes of others."""

    workers = 1
    threads = 1

    def __init__(
        self,
        script: Script = lambda _run: "ok",
        score: Callable[[PlannedRun], float] = lambda run: 50.0 + run.seed,
    ) -> None:
        self.script, self.score = script, score
        self.played: list[tuple[str, int]] = []
        self.names: list[str] = []
        self.rest: list[EngineEvent] = []

    def execute(self, jobs: Iterable[Job]) -> Generator[EngineEvent, None, None]:
        for job in jobs:
            run, context = job.args
            if job.function is execute_rehearsal:
                yield Returned(job.name, play_rehearsal(run, context), "")
                continue
            self.played.append((run.row.name, run.seed))
            self.names.append(job.name)
            yield Started(job.name, 1)
            yield from self.play(job.name, run, context, self.script(run))

    def take_rest(self) -> list[EngineEvent]:
        rest, self.rest = self.rest, []
        return rest

    def play(self, name: str, run: PlannedRun, context: RunContext, fate: str) -> Generator[EngineEvent, None, None]:
        if fate == "stillborn":
            yield Died(name, 1, "Traceback ...\nImportError: no module")
            return
        open_run = OpenRun(run, context.spec.recipe.limits, context.provenance)
        opened = Opened(context.provenance, continues=False)
        for note in (opened, Measured({"params": 1000.0, "macs": 5000.0}), *CURVE):
            open_run.add(note)
            yield Message(name, note)
        match fate:
            case "killed":
                yield Died(name, -signal.SIGKILL, "")
            case "terminated":
                yield Died(name, -signal.SIGTERM, "")
            case "starved":
                yield Died(name, -signal.SIGKILL, "", is_out_of_memory=True)
            case "crashed":
                yield Died(name, -signal.SIGSEGV, "")
            case "timed_out":
                yield TimedOut(name, "")
            case "hangs":
                pytest.fail("the events of a hanging run are not read further")
            case _:
                open_run.add(Measured({"test/top1": self.score(run)}))
                record = open_run.to_record(RunStatus(fate), step=17 if fate == "diverged" else None)
                yield Returned(name, record, "")


def play(
    plan: Plan, tracker: MlflowTracker, options: RunOptions, engine: PlayedEngine | None = None
) -> tuple[list[Event], list[tuple[str, int]]]:
    """All events, and the (row, seed) that were trained."""
    engine = engine or PlayedEngine()
    return list(run_plan(plan, tracker=tracker, engine=engine, options=options)), engine.played


def records_of(events: list[Event]) -> dict[tuple[str, int], Record]:
    return {(event.run.row.name, event.run.seed): event.record for event in events if isinstance(event, RunEnded)}


def invocations(tracker: MlflowTracker) -> list[Run]:
    client = MlflowClient(tracker.store.uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(ids, "tags.kind = 'invocation'"))


def only_row(name: str, fate: str) -> PlayedEngine:
    """One row's first replicate has a fate; all others are ok."""
    return PlayedEngine(lambda run: fate if (run.row.name, run.seed) == (name, 0) else "ok")


def test_every_run_is_trained_in_the_order_of_the_plan(plan: Plan, tracker: MlflowTracker, options: RunOptions) -> None:
    events, trained = play(plan, tracker, options)
    assert trained == [(run.row.name, run.seed) for run in plan.runs]
    kinds = Counter(type(event) for event in events)
    rehearsed = {Rehearsing: 1, RehearsalEnded: 2}
    assert kinds == {Planned: 1, **rehearsed, RunStarted: 4, EpochEnded: 8, RunEnded: 4, TableWritten: 1}
    assert isinstance(events[0], Planned)


def test_a_cell_that_two_rows_show_is_trained_once(plan: Plan, tracker: MlflowTracker, options: RunOptions) -> None:
    rows = {**plan.spec.rows, "Swin-T again": plan.spec.rows["Swin-T"]}
    twice = make_plan(plan.spec.model_copy(update={"rows": rows}), is_derived=True)
    events, trained = play(twice, tracker, options)
    assert Counter(row for row, _ in trained) == {"Swin-T": 2, "Net7-N": 2}
    frame = cast("TableWritten", events[-1]).results.frame.set_index("row")
    assert frame.loc["Swin-T again", "top1_mean"] == frame.loc["Swin-T", "top1_mean"]


def test_a_placebo_is_trained_with_its_own_seeds_and_rehearsed_as_the_baseline(
    plan: Plan, tracker: MlflowTracker, options: RunOptions
) -> None:
    rows = {**plan.spec.rows, "Swin-T again": RowSpec(placebo=True)}
    placebo = make_plan(plan.spec.model_copy(update={"rows": rows}))
    events, trained = play(placebo, tracker, replace(options, rows=("Swin-T again",)))
    assert trained == [("Swin-T again", 1000), ("Swin-T again", 1001)]
    assert [(run.row.name, run.seed) for event in events if isinstance(event, Rehearsing) for run in event.runs] == [
        ("Swin-T again", 0)
    ]
    events, trained = play(placebo, tracker, options)
    assert trained == [(name, seed) for seed in (0, 1) for name in ("Swin-T", "Net7-N")]
    frame = cast("TableWritten", events[-1]).results.frame.set_index("row")
    assert (frame.loc["Swin-T again", "top1_mean"], frame.loc["Swin-T", "top1_mean"]) == (1050.5, 50.5)
    entries = read_ledger(placebo, tracker, {})
    assert {(each.run.row.name, each.run.seed) for each in entries if each.standing == Standing.DONE} == {
        (run.row.name, run.seed) for run in placebo.runs
    }


def test_results_that_cannot_be_written_are_told_before_the_first_run(
    plan: Plan, tracker: MlflowTracker, options: RunOptions, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    engine = PlayedEngine()
    with pytest.raises(StoreError, match=r"tables cannot be written to .*/file/tiny: Not a directory"):
        play(plan, tracker, replace(options, results=tmp_path / "file"), engine)
    assert engine.played == []


def test_the_table_is_written_at_the_end_and_kept_with_the_invocation(
    plan: Plan, tracker: MlflowTracker, options: RunOptions
) -> None:
    events, _ = play(plan, tracker, options)
    written = events[-1]
    assert isinstance(written, TableWritten)
    assert list(written.results.frame["n"]) == [2] * 2
    assert {path.name for path in written.files} == {"small.csv", "small.md", "small.tex", "small.html"}
    (invocation,) = invocations(tracker)
    assert invocation.info.status == "FINISHED"
    assert invocation.data.metrics["runs/ok"] == 4
    artifacts = MlflowClient(tracker.store.uri).list_artifacts(invocation.info.run_id)
    assert {artifact.path for artifact in artifacts} == {path.name for path in written.files}
    assert "| Swin-T |" in invocation.data.tags["mlflow.note.content"]


def test_a_second_call_trains_nothing(plan: Plan, tracker: MlflowTracker, options: RunOptions) -> None:
    first, _ = play(plan, tracker, options)
    second, trained = play(plan, tracker, options)
    assert trained == []
    assert cast("TableWritten", second[-1]).results.frame.equals(cast("TableWritten", first[-1]).results.frame)


def test_more_seeds_train_only_the_new_ones(plan: Plan, tracker: MlflowTracker, options: RunOptions) -> None:
    spec = plan.spec
    play(make_plan(spec.model_copy(update={"seeds": 1})), tracker, options)
    _, trained = play(plan, tracker, options)
    assert trained == [("Swin-T", 1), ("Net7-N", 1)]


@pytest.mark.parametrize(("keep_stale", "expected"), [(False, ["Net7-N"] * 2), (True, [])], ids=["default", "kept"])
def test_what_changed_code_reaches_is_trained_again(
    plan: Plan,
    tracker: MlflowTracker,
    options: RunOptions,
    monkeypatch: pytest.MonkeyPatch,
    keep_stale: bool,
    expected: list[str],
) -> None:
    play(plan, tracker, options)
    known = {cell.id: code_digest(cell) for cell in (row.cell for row in plan.rows)}
    changed = plan.rows[1].cell.id
    monkeypatch.setattr(
        "harness.execution.ledger.code_digest", lambda cell: "new" if cell.id == changed else known[cell.id]
    )
    _, trained = play(plan, tracker, replace(options, keep_stale=keep_stale))
    assert [name for name, _ in trained] == expected


def test_a_cell_of_another_experiment_is_copied_not_trained(
    plan: Plan, tracker: MlflowTracker, options: RunOptions
) -> None:
    play(plan, tracker, options)
    other = make_plan(plan.spec.model_copy(update={"name": "other"}))
    events, trained = play(other, tracker, options)
    assert trained == []
    assert list(cast("TableWritten", events[-1]).results.frame["n"]) == [2] * 2


KILLED, TERMINATED = "killed by signal 9 (SIGKILL)", "killed by signal 15 (SIGTERM)"

OUTCOMES = {
    "killed": (RunStatus.INTERRUPTED, KILLED),
    "terminated": (RunStatus.INTERRUPTED, TERMINATED),
    "starved": (RunStatus.OUT_OF_MEMORY, KILLED),
    "timed_out": (RunStatus.TIMED_OUT, ""),
    "diverged": (RunStatus.DIVERGED, ""),
    "crashed": (RunStatus.FAILED, "killed by signal 11 (SIGSEGV)"),
    "stillborn": (RunStatus.FAILED, "exit code 1: ImportError: no module"),
    "failed": (RunStatus.FAILED, ""),
}
"""What the store says of each fate."""


def test_a_plan_is_paused_where_three_rows_fail_by_the_same_exception(
    small_plan: Plan, tracker: MlflowTracker, options: RunOptions, caplog: pytest.LogCaptureFixture
) -> None:
    engine = PlayedEngine(lambda run: "ok" if run.row.name == "Swin-T" else "crashed")
    plan = make_plan(small_plan.spec.model_copy(update={"seeds": 2}))
    events, trained = play(plan, tracker, options, engine)
    assert [name for name, _ in trained] == ["Swin-T", "Net1", "Net7-N", "Linear classifier"]
    assert isinstance(events[-1], TableWritten)
    (warned,) = [text for text in caplog.messages if "no further run" in text]
    assert warned == (
        "Linear classifier, Net1, Net7-N failed by the same exception, so no further run is started: "
        "killed by signal 11 (SIGSEGV)"
    )
    _, again = play(plan, tracker, options)
    assert [name for name, seed in again if seed == 0] == ["One hidden layer"]


RESULTS = ("starved", "timed_out", "diverged")
"""Fates that are results; after the others a run is tried again."""


@pytest.fixture
def fates(request: pytest.FixtureRequest, plan: Plan) -> Plan:
    """One seed: a row for each fate, called like it, after one that is ok."""
    rows = {"Swin-T": plan.spec.rows["Swin-T"]}
    rows |= {fate: RowSpec(parameterization=TERMS[: number + 1]) for number, fate in enumerate(request.param[:3])}
    rows |= {fate: RowSpec(parameterization=TERMS[number + 1 :]) for number, fate in enumerate(request.param[3:])}
    return make_plan(plan.spec.model_copy(update={"rows": rows, "published": {}, "seeds": 1}))


@pytest.mark.parametrize(
    ("fates", "call"),
    [(("killed", "terminated", *RESULTS), "ok"), (("crashed", "stillborn", "failed"), "failed")],
    indirect=["fates"],
    ids=["no failure", "failures"],
)
def test_a_bad_outcome_is_recorded_and_the_plan_goes_on(
    fates: Plan, tracker: MlflowTracker, options: RunOptions, call: str
) -> None:
    engine = PlayedEngine(lambda run: "ok" if run.row.name == "Swin-T" else run.row.name)
    events, trained = play(fates, tracker, options, engine)
    names = [row.name for row in fates.rows]
    assert [name for name, _ in trained] == names
    frame = cast("TableWritten", events[-1]).results.frame.set_index("row")
    for fate in names[1:]:
        record = records_of(events)[fate, 0]
        assert (record.status, record.status_detail) == OUTCOMES[fate]
        stored = tracker.ledger([record.cell_id])
        assert [(found.status, found.run_id) for found in stored] == [(record.status, record.run_id)]
        assert frame.loc[fate, "n"] == 0
        assert frame.loc[fate, "outcomes"] == ((record.status, record.step),)
    assert frame.loc["Swin-T", "n"] == 1
    assert invocations(tracker)[0].data.tags["status"] == call
    interrupted = [name for name in names[1:] if OUTCOMES[name][0] == RunStatus.INTERRUPTED]
    events, again = play(fates, tracker, options)
    assert [name for name, _ in again] == interrupted
    assert invocations(tracker)[0].data.tags["status"] == "ok"
    _, again = play(fates, tracker, replace(options, retry_failed=True))
    wanted = (RunStatus.FAILED, RunStatus.DIVERGED)
    assert [name for name, _ in again] == [name for name in names[1:] if OUTCOMES[name][0] in wanted]


def test_a_killed_run_keeps_what_it_reached(plan: Plan, tracker: MlflowTracker, options: RunOptions) -> None:
    events, _ = play(plan, tracker, options, only_row("Net7-N", "killed"))
    record = records_of(events)["Net7-N", 0]
    assert record.metrics["params"] == 1000.0
    assert len(record.curve) == 2
    (stored,) = [found for found in tracker.ledger([record.cell_id], curves=["val/top1"]) if found.seed == 0]
    assert [epoch.metrics["val/top1"] for epoch in stored.curve] == [41.0, 42.0]


def test_closing_the_events_ends_what_runs_as_interrupted(
    plan: Plan, tracker: MlflowTracker, options: RunOptions
) -> None:
    engine = PlayedEngine(lambda run: "ok" if run.row.name == "Swin-T" else "hangs")
    with closing(run_plan(plan, tracker=tracker, engine=engine, options=options)) as events:
        next(event for event in events if isinstance(event, EpochEnded) and event.run.row.name == "Net7-N")
    (record,) = tracker.ledger([plan.rows[1].cell.id])
    assert record.status == RunStatus.INTERRUPTED
    assert invocations(tracker)[0].data.tags["status"] == "interrupted"
    assert not options.results.exists()
    _, trained = play(plan, tracker, options)
    assert trained == [(run.row.name, run.seed) for run in plan.runs[1:]]


def test_an_interruption_keeps_a_run_that_has_finished(plan: Plan, tracker: MlflowTracker, options: RunOptions) -> None:
    engine = PlayedEngine(lambda _run: "hangs")
    with closing(run_plan(plan, tracker=tracker, engine=engine, options=options)) as events:
        event = next(event for event in events if isinstance(event, EpochEnded) and event.epoch.epoch == 2)
        open_run = OpenRun(event.run, LimitsSpec(), {"code_digest": "c0de", "data_digest": "da7a"})
        for note in (*CURVE, Measured({"test/top1": 77.0})):
            open_run.add(note)
        record = open_run.to_record(RunStatus.OK)
        engine.rest = [Returned(engine.names[0], record, "")]
    (stored,) = tracker.ledger([record.cell_id])
    assert (stored.status, stored.metrics["test/top1"]) == (RunStatus.OK, 77.0)
    (invocation,) = invocations(tracker)
    assert invocation.data.tags["status"] == "interrupted"
    assert invocation.data.metrics == {"runs/ok": 1.0}


@pytest.mark.parametrize(
    ("outcome", "status"), [(TimedOut("", ""), RunStatus.TIMED_OUT), (Died("", 1, "Error: x"), RunStatus.FAILED)]
)
def test_an_interruption_keeps_an_outcome_that_only_the_engine_knows(
    plan: Plan, tracker: MlflowTracker, options: RunOptions, outcome: TimedOut | Died, status: RunStatus
) -> None:
    engine = PlayedEngine(lambda _run: "hangs")
    with closing(run_plan(plan, tracker=tracker, engine=engine, options=options)) as events:
        next(event for event in events if isinstance(event, EpochEnded))
        engine.rest = [Message(engine.names[0], CURVE[1]), replace(outcome, name=engine.names[0])]
    (stored,) = tracker.ledger([plan.rows[0].cell.id])
    assert stored.status == status


def test_damaged_data_is_one_error_before_any_run(plan: Plan, tracker: MlflowTracker, tmp_path: Path) -> None:
    source = Path(__file__).parents[3] / "harness/data/files/fashion_mnist"
    for file in source.glob("*.gz"):
        (tmp_path / file.name).write_bytes(file.read_bytes()[:1000])
    engine = PlayedEngine()
    settings = RunOptions(tmp_path / "results", data_dir=tmp_path)
    with pytest.raises(DataError, match="is damaged"):
        list(run_plan(plan, tracker=tracker, engine=engine, options=settings))
    assert engine.played == []


def test_an_empty_store_gives_no_table(plan: Plan, tracker: MlflowTracker, options: RunOptions) -> None:
    with pytest.raises(StoreError, match="no run of small under recipe tiny is stored"):
        write_results(plan, tracker, {}, options.results)
    assert not options.results.exists()


@pytest.mark.parametrize("obstacle", ["a folder", "a long name"])
def test_whatever_is_in_the_way_of_a_table_is_told_before_the_first_run(
    plan: Plan, tracker: MlflowTracker, options: RunOptions, obstacle: str
) -> None:
    if obstacle == "a folder":
        (options.results / "tiny" / "small.csv").mkdir(parents=True)
    else:
        options = replace(options, results=options.results / ("x" * 300))
    engine = PlayedEngine()
    with pytest.raises(StoreError, match="small.csv is a folder" if obstacle == "a folder" else "too long"):
        play(plan, tracker, options, engine)
    assert engine.played == []


def test_a_table_that_cannot_be_written_at_the_end_loses_nothing(
    plan: Plan, tracker: MlflowTracker, options: RunOptions
) -> None:
    engine = PlayedEngine()
    with (
        pytest.raises(StoreError, match=r"the table cannot be written to .*: Not a directory; all runs are stored"),
        closing(run_plan(plan, tracker=tracker, engine=engine, options=options)) as events,
    ):
        for event in events:
            if isinstance(event, Planned):
                options.results.write_text("in the way since the check")
    assert len(engine.played) == 4
    (invocation,) = invocations(tracker)
    assert invocation.data.tags["status"] == "ok"
    options.results.unlink()
    assert list(write_results(plan, tracker, {}, options.results).results.frame["n"]) == [2, 2]
