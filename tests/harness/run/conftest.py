"""An engine that plays: what becomes of each run is written down before."""

from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import pytest

from harness.engines.engine import Died, Event, Message, Returned, Started, Task, TimedOut
from harness.plan import Plan, PlannedRun, make_plan
from harness.record import EpochMetrics, RunStatus
from harness.run import RunOptions
from harness.run.context import RunContext
from harness.run.open_run import Measured, Opened, OpenRun
from harness.spec import ExperimentSpec
from harness.tracking import MlflowTracker

CURVE = tuple(
    EpochMetrics(epoch, 10 * epoch, {"val/top1": 40.0 + epoch, "train/loss": 1.0, "train/images_per_second": 100.0})
    for epoch in (1, 2)
)

Script = Callable[[PlannedRun], str]


class PlayedEngine:
    """Plays `ok`, `diverged`, `failed` (all three end by themselves), `killed`, `stillborn`, `timed_out` or `hangs`."""

    workers = 1
    threads = 1

    def __init__(self, script: Script = lambda _run: "ok") -> None:
        self.script = script
        self.played: list[tuple[str, int]] = []

    def execute(self, tasks: Iterable[Task]) -> Generator[Event, None, None]:
        for task in tasks:
            run, context = task.args
            self.played.append((run.row.name, run.seed))
            yield Started(task.name, 1)
            yield from self.play(task.name, run, context, self.script(run))

    def play(self, name: str, run: PlannedRun, context: RunContext, fate: str) -> Generator[Event, None, None]:
        if fate == "stillborn":
            yield Died(name, 1, "Traceback ...\nImportError: no module")
            return
        run_id = context.tracker.start_run(
            run, spec=context.spec, parent_id=context.parent_id, provenance=context.provenance
        )
        open_run = OpenRun(run, context.spec.recipe.limits, context.provenance)
        for note in (Opened(run_id, context.provenance), Measured({"params": 1000.0, "macs": 5000.0}), *CURVE):
            open_run.add(note)
            if isinstance(note, EpochMetrics):
                context.tracker.log_epoch(run_id, note)
            yield Message(name, note)
        match fate:
            case "killed":
                yield Died(name, -9, "")
            case "timed_out":
                yield TimedOut(name, "")
            case "hangs":
                pytest.fail("the events of a hanging run are not read further")
            case _:
                open_run.add(Measured({"test/top1": 50.0 + run.seed}))
                record = open_run.to_record(RunStatus(fate), "17" if fate == "diverged" else "")
                context.tracker.finish_run(run_id, record)
                yield Returned(name, record, "")


@pytest.fixture
def plan(small_spec: ExperimentSpec) -> Plan:
    """Two rows, two seeds, no floors: every run costs the store a quarter of a second."""
    rows = {name: row for name, row in small_spec.rows.items() if name != "Net1"}
    recipe = small_spec.recipe.model_copy(update={"floor_width": None})
    return make_plan(small_spec.model_copy(update={"rows": rows, "recipe": recipe, "seeds": 2}))


@pytest.fixture
def tracker(tracking_uri: str) -> MlflowTracker:
    return MlflowTracker(tracking_uri)


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    return RunOptions(tmp_path / "results")
