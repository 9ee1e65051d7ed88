"""The settings that a run's process gets from its parent. Imports no torch."""

import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import PluginError
from harness.execution.open_run import RunMessage, Warned
from harness.plan import PlannedRun
from harness.plugins import load_plugins
from harness.provenance import code_digest, list_foreign
from harness.record import Record
from harness.spec import ExperimentSpec
from harness.trace import Rehearsal
from harness.tracking import Tracker


@dataclass(frozen=True)
class RunContext:
    """What a run needs besides its cell and its seed; it may be pickled.

    Attributes:
        tracker: read only; whoever started the process writes what it reports.
        run_id: of the run in the store; empty of a rehearsal.
        provenance: of the invocation, and the digests of the cell.
        threads: CPU threads.
        plugins: modules with levels that the cell may name.
        tests: whether the trained model is measured on the test set.
        host: where the command runs, of whose processor the provenance speaks.
        rehearsal: of the run's cell; None where the run is its own, or has none.
    """

    tracker: Tracker
    spec: ExperimentSpec
    run_id: str
    provenance: Mapping[str, str]
    data_dir: Path | None
    threads: int
    plugins: tuple[str, ...] = ()
    tests: bool = True
    rehearsal: Rehearsal | None = None
    host: str = field(default_factory=socket.gethostname)


class _Reporter(logging.Handler):
    """Sends what is logged to the parent: nobody sees what this process writes."""

    def __init__(self, report: Callable[[RunMessage], None]) -> None:
        super().__init__(logging.WARNING)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """Send a log message to the parent process."""
        self._report(Warned(record.getMessage()))


def execute_cell(report: Callable[[RunMessage], None], run: PlannedRun, context: RunContext) -> Record:
    """Import what trains, where it is not imported yet, and train.

    Raises:
        PluginError: a level's code from outside cannot be loaded any more, or is not what the plan has seen.
    """
    load_code(report, run, context)
    from harness.execution.cell import run_cell

    return run_cell(report, run, context)


def execute_rehearsal(report: Callable[[RunMessage], None], run: PlannedRun, context: RunContext) -> Rehearsal:
    """As `execute_cell`, for a rehearsal."""
    load_code(report, run, context)
    from harness.execution.rehearse import rehearse_cell

    return rehearse_cell(report, run, context)


def load_code(report: Callable[[RunMessage], None], run: PlannedRun, context: RunContext) -> None:
    """Load the code from outside that a run names; from now on `report` gets warnings too.

    Raises:
        PluginError: it cannot be loaded any more, or is not what the plan has seen.
    """
    logging.getLogger("harness").addHandler(_Reporter(report))
    load_plugins(*context.plugins)
    cell = run.row.cell
    if list_foreign(cell) and code_digest(cell) != context.provenance["code_digest"]:
        raise PluginError("the code of a plugin, or the project's own, has changed since the plan was made")
