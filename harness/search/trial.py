"""The result of a trial, as a study stores it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.record import RunStatus


class TrialState(StrEnum):
    """The final state of a trial."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"


@dataclass(frozen=True)
class TrialResult:
    """A trial that has ended.

    Attributes:
        values: values of the fields, by the name of the parameter.
        objectives: measured values, by the name of the objective; empty unless complete.
        status: the status of the trial's run; None if the point is not a possible operator, so that there is no run.
        reason: why there is no measurement; empty if there is one.
        cell_id: the id of the trained cell; empty if the point is not a possible operator.
        run_id: the id in the tracking store.
        digests: of code and data, joined.
        is_reused: whether the store had the run already.
    """

    number: int
    state: TrialState
    values: Mapping[str, Any]
    objectives: Mapping[str, float]
    status: RunStatus | None
    reason: str
    cell_id: str
    run_id: str
    digests: str
    is_reused: bool
