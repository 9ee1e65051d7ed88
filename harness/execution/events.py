"""The events that `run_plan` yields."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.execution.ledger import Entry
from harness.execution.open_run import Resumed
from harness.plan import PlannedRun
from harness.record import EpochMetrics, Record
from harness.table.looks import Course
from harness.table.results import Results
from harness.trace import Rehearsal
from harness.tracking import LiveRun


@dataclass(frozen=True)
class Adopted:
    """Runs of the record file beside the tables are now in the store.

    Attributes:
        path: the file.
        runs: how many the store did not have.
    """

    path: Path
    runs: int


@dataclass(frozen=True)
class Planned:
    """Before the first run: what is done and what will be trained.

    Attributes:
        entries: every run of the plan, in its order.
        to_do: those that will be trained.
        closed: how many runs of earlier invocations were found dead and closed as interrupted.
        elsewhere: runs of the same cells that other processes have open at this moment.
    """

    entries: tuple[Entry, ...]
    to_do: tuple[PlannedRun, ...]
    closed: int
    elsewhere: tuple[LiveRun, ...]


@dataclass(frozen=True)
class Rehearsing:
    """Some cells are rehearsed now.

    Attributes:
        runs: the replicates through which they are.
        decides: whether it is to find out what of older code still stands, not what is about to be trained.
    """

    runs: tuple[PlannedRun, ...]
    decides: bool


@dataclass(frozen=True)
class RehearsalEnded:
    """A cell has its rehearsal."""

    run: PlannedRun
    rehearsal: Rehearsal


@dataclass(frozen=True)
class Forecast:
    """Before the first long run: what all of them are expected to take, at once as many as the engine has workers.

    Attributes:
        seconds: until the last has ended.
        peak_memory_gb: of the largest run.
    """

    seconds: float
    peak_memory_gb: float


@dataclass(frozen=True)
class Rehearsed:
    """All cells of a plan that is not trained are rehearsed.

    Attributes:
        entries: every run of the plan, in its order.
        rehearsals: of today's code, by cell id.
    """

    entries: tuple[Entry, ...]
    rehearsals: Mapping[str, Rehearsal]


@dataclass(frozen=True)
class RunStarted:
    """A run has its process."""

    run: PlannedRun


@dataclass(frozen=True)
class RunResumed:
    """A run continues from its checkpoint."""

    run: PlannedRun
    resumed: Resumed


@dataclass(frozen=True)
class TrainedElsewhere:
    """All that is left to do is trained by other calls at this moment; this one waits for it."""

    runs: tuple[PlannedRun, ...]


@dataclass(frozen=True)
class EpochEnded:
    """A run has trained and validated one more epoch."""

    run: PlannedRun
    epoch: EpochMetrics


@dataclass(frozen=True)
class RunEnded:
    """A run has its record, whatever the outcome.

    Attributes:
        is_elsewhere: another call has trained it meanwhile.
    """

    run: PlannedRun
    record: Record
    is_elsewhere: bool = False


@dataclass(frozen=True)
class Looked:
    """A table whose rows get seeds until they are resolved was looked at."""

    course: Course


@dataclass(frozen=True)
class TableWritten:
    """At the end: the table of all that the store has of this plan."""

    results: Results
    files: tuple[Path, ...]


Event = (
    Adopted
    | Planned
    | Rehearsing
    | RehearsalEnded
    | Forecast
    | Rehearsed
    | RunStarted
    | RunResumed
    | TrainedElsewhere
    | EpochEnded
    | RunEnded
    | Looked
    | TableWritten
)
