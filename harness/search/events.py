"""The events that a search yields."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.record import EpochMetrics
from harness.search.trial import TrialResult


@dataclass(frozen=True)
class StudyOpened:
    """Before the first trial.

    Attributes:
        name: name of the study in its storage.
        storage: a path or URL, without a password.
        num_trials: number of trials of the study.
        ended: trials that ended in earlier calls.
        closed: number of runs of earlier calls whose process had died, and which were closed as interrupted.
    """

    name: str
    storage: str
    num_trials: int
    ended: tuple[TrialResult, ...]
    closed: int


@dataclass(frozen=True)
class TrialStarted:
    """A trial has its point; `is_resumed` if an earlier call started it."""

    number: int
    values: Mapping[str, Any]
    epochs: int
    is_resumed: bool


@dataclass(frozen=True)
class TrialEpochEnded:
    """A trial has trained and validated one of its `epochs`."""

    number: int
    epoch: EpochMetrics
    epochs: int


@dataclass(frozen=True)
class TrialEnded:
    """A trial has its result."""

    result: TrialResult


@dataclass(frozen=True)
class TrialInterrupted:
    """The run of a trial was interrupted; the trial stays open, and the next call continues it."""

    number: int
    reason: str


@dataclass(frozen=True)
class SearchEnded:
    """No more trials are started, and the report is written.

    Attributes:
        is_complete: whether the study has all its trials, and none is open.
        best: the trial with the best validation score, on the Pareto front if there are two objectives; None if no
            trial was measured.
    """

    is_complete: bool
    best: TrialResult | None
    files: tuple[Path, ...]


SearchEvent = StudyOpened | TrialStarted | TrialEpochEnded | TrialEnded | TrialInterrupted | SearchEnded
