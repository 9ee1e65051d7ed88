"""From a plan to records: trains what is missing, one process per run.

`from harness import run` means the library's function, and Python would give it this package instead, as soon as
anything has imported that: so the package can be called, and is that function.
"""

import sys
from inspect import signature
from types import ModuleType

from harness.run.events import EpochEnded, Event, Planned, RunEnded, RunStarted, TableWritten
from harness.run.library import run
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


class _Package(ModuleType):
    __call__ = staticmethod(run)
    __signature__ = signature(run)


sys.modules[__name__].__class__ = _Package
