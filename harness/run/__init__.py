"""From a plan to records: what is missing is trained, one process a run. Torch is imported in those processes alone."""

from harness.run.events import EpochEnded, Event, Planned, RunEnded, RunStarted, TableWritten
from harness.run.plan import PRELOAD, RunOptions, run_plan, write_results

__all__ = [
    "PRELOAD",
    "EpochEnded",
    "Event",
    "Planned",
    "RunEnded",
    "RunOptions",
    "RunStarted",
    "TableWritten",
    "run_plan",
    "write_results",
]
