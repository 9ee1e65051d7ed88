"""From a plan to records: trains what is missing, one process per run."""

from harness.execution.events import (
    Adopted,
    EpochEnded,
    Event,
    Forecast,
    Looked,
    Planned,
    RehearsalEnded,
    Rehearsed,
    Rehearsing,
    RunEnded,
    RunResumed,
    RunStarted,
    TableWritten,
    TrainedElsewhere,
)
from harness.execution.plan import PRELOAD, RunOptions, read_results, rehearse_plan, run_plan, write_results

__all__ = [
    "PRELOAD",
    "Adopted",
    "EpochEnded",
    "Event",
    "Forecast",
    "Looked",
    "Planned",
    "RehearsalEnded",
    "Rehearsed",
    "Rehearsing",
    "RunEnded",
    "RunOptions",
    "RunResumed",
    "RunStarted",
    "TableWritten",
    "TrainedElsewhere",
    "read_results",
    "rehearse_plan",
    "run_plan",
    "write_results",
]
