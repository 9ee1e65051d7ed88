import io
from dataclasses import replace

import pytest
from rich.console import Console

from harness.commands.progress import Tally, _LiveProgress, open_progress
from harness.execution import EpochEnded, Event, Planned, RunEnded, RunStarted
from harness.execution.ledger import Entry, Standing
from harness.plan import Plan, PlannedRun
from harness.record import EpochMetrics, Record, RunStatus
from harness.tracking import LiveRun


def make_record(run: PlannedRun, status: RunStatus, detail: str = "") -> Record:
    """A good run has two epochs, a bad one none."""
    bad = Record(run.row.cell.id, run.row.name, run.seed, status, metrics={"seconds": 7.0}, status_detail=detail)
    curve = tuple(make_epoch(run, number).epoch for number in (1, 2))
    good = replace(bad, metrics={"test/top1": 81.25, "seconds": 3723.0}, curve=curve)
    return good if status == RunStatus.OK else bad


def make_epoch(run: PlannedRun, number: int) -> EpochEnded:
    return EpochEnded(run, EpochMetrics(number, 10 * number, {"val/top1": 70.5, "train/loss": 1.25}))


@pytest.fixture
def events(small_plan: Plan) -> list[Event]:
    """Of fifteen runs the last is done; two train, of which one fails."""
    *waiting, last = small_plan.runs
    good, bad, *_ = waiting
    entries = (*(Entry(run, Standing.TO_DO, None) for run in waiting), Entry(last, Standing.DONE, None))
    return [
        Planned(entries, tuple(waiting), closed=0, elsewhere=()),
        RunStarted(good),
        RunStarted(bad),
        make_epoch(good, 1),
        RunEnded(bad, make_record(bad, RunStatus.FAILED, "ValueError: [red]no[/red]")),
        make_epoch(good, 2),
        RunEnded(good, make_record(good, RunStatus.OK)),
    ]


def show_plain(*events: Event) -> list[str]:
    stream = io.StringIO()
    with open_progress(stream) as show:
        for event in events:
            show(event)
    return stream.getvalue().splitlines()


def test_without_a_terminal_every_event_is_a_plain_line(events: list[Event]) -> None:
    assert show_plain(*events) == [
        "15 runs: 1 done, 14 to train",
        "Swin-T seed 0: epoch 1/2, val top-1 70.50 %, train loss 1.250",
        "[2/15] Net1 seed 0: failed: ValueError: [red]no[/red], after 0:07",
        "Swin-T seed 0: epoch 2/2, val top-1 70.50 %, train loss 1.250",
        "[3/15] Swin-T seed 0: test top-1 81.25 %, took 1:02:03",
    ]


@pytest.mark.parametrize(
    ("status", "detail", "expected"),
    [
        (RunStatus.DIVERGED, "the loss is nan", "diverged: the loss is nan, after 0:07"),
        (RunStatus.OUT_OF_MEMORY, "", "out of memory, after 0:07"),
        (RunStatus.TIMED_OUT, "", "timed out, after 0:07"),
    ],
)
def test_a_bad_outcome_is_said(small_plan: Plan, status: RunStatus, detail: str, expected: str) -> None:
    run = small_plan.runs[0]
    assert show_plain(RunEnded(run, make_record(run, status, detail))) == [f"[1/0] Swin-T seed 0: {expected}"]


@pytest.mark.parametrize("keep_stale", [False, True])
def test_what_was_found_is_said(small_plan: Plan, keep_stale: bool) -> None:
    runs = small_plan.runs[:2]
    entries = tuple(Entry(run, Standing.STALE, None) for run in runs)
    elsewhere = (LiveRun("id", "cell", "Net1", 2, host="box", pid=42),)
    lines = show_plain(Planned(entries, () if keep_stale else runs, closed=3, elsewhere=elsewhere))
    assert lines[0] == f"2 runs: {2 if keep_stale else 0} done, {0 if keep_stale else 2} to train"
    assert ("kept" if keep_stale else "trained again") in lines[1]
    assert lines[2:] == [
        "closed what an earlier call left open: 3 runs",
        "Net1 seed 2 is also being trained by process 42 on box",
    ]


def test_on_a_terminal_each_running_cell_has_a_line(events: list[Event]) -> None:
    stream = io.StringIO()
    progress = _LiveProgress(Console(file=stream, force_terminal=True, width=120))
    with progress as show:
        for event in events[:4]:
            show(event)
        running = [progress._progress.tasks[index] for index in range(3)]
        assert [task.description for task in running] == ["all runs", "Swin-T seed 0", "Net1 seed 0"]
        assert [task.fields["count"] for task in running] == ["1/15 runs", "epoch 1/2", "epoch 0/2"]
        for event in events[4:]:
            show(event)
        (overall,) = progress._progress.tasks
        assert (overall.completed, overall.total, overall.fields["count"]) == (4, 28, "3/15 runs")
    output = stream.getvalue()
    assert "ValueError: [red]no[/red]" in output
    assert "test top-1 81.25 %" in output


def test_the_tally_counts_results_and_keeps_failures(events: list[Event]) -> None:
    tally = Tally()
    for event in events:
        tally.add(event)
    assert (tally.total, tally.done) == (15, 2)
    assert [record.row for record in tally.failed] == ["Net1"]


def test_an_interrupted_run_is_not_done(small_plan: Plan) -> None:
    tally = Tally()
    run = small_plan.runs[0]
    tally.add(RunEnded(run, make_record(run, RunStatus.INTERRUPTED)))
    assert (tally.done, tally.failed) == (0, [])
