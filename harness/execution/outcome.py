"""How a run ended, or one of its ranks."""

from collections.abc import Mapping
from typing import NamedTuple

from harness.errors import Cause
from harness.record import RunStatus


class Ended(NamedTuple):
    """The fields of a record that say how a run ended."""

    status: RunStatus
    detail: str = ""
    step: int | None = None
    cause: Cause | None = None
    module: str = ""


class Failure(NamedTuple):
    """What is known of an exception besides its outcome: its traceback, and its origin as in `Raised`."""

    output: str
    origin: str


class Outcome(NamedTuple):
    """The end of an attempt in one process, or in several.

    Attributes:
        metrics: `peak_memory_gb`, the most memory that the process has held, or that of several which has held most; it
            is missing where none could say.
    """

    ended: Ended
    failure: Failure | None
    metrics: Mapping[str, float]
