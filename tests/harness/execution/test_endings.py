"""How the ends of ranks make the end of a run."""

import signal
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import Cause
from harness.execution.launch import _choose
from harness.execution.outcome import Ended, Failure, Outcome
from harness.record import RunStatus

GOOD = Outcome(Ended(RunStatus.OK), None, {"peak_memory_gb": 1.0})
LOST = Outcome(Ended(RunStatus.FAILED, "connection closed"), Failure("Traceback", "origin"), {"peak_memory_gb": 3.0})
BUG = Outcome(Ended(RunStatus.FAILED, "a bug"), Failure("Traceback", "other"), {"peak_memory_gb": 2.0})
DIVERGED = Outcome(Ended(RunStatus.DIVERGED, "nan", 7, Cause.LOSS), None, {"peak_memory_gb": 2.0})


class Kills:
    def __init__(self, *, number: int = 0) -> None:
        self.number = number

    def claim(self) -> bool:
        self.number -= 1
        return self.number >= 0


def died(exit_code: int) -> Any:
    return SimpleNamespace(local_rank=1, exitcode=exit_code, message="the last words")


@pytest.mark.parametrize(
    ("exit_code", "kills", "status"),
    [
        (-signal.SIGKILL, 0, RunStatus.INTERRUPTED),
        (-signal.SIGKILL, 1, RunStatus.OUT_OF_MEMORY),
        (-signal.SIGTERM, 1, RunStatus.INTERRUPTED),
        (-signal.SIGSEGV, 0, RunStatus.FAILED),
    ],
)
def test_a_signal_explains_the_exceptions_of_the_other_ranks(exit_code: int, kills: int, status: RunStatus) -> None:
    chosen = _choose({0: LOST}, died(exit_code), Kills(number=kills))  # type: ignore[arg-type]
    assert chosen.ended.status == status
    assert chosen.ended.detail.startswith("rank 1 was killed by signal")


def test_the_first_exception_explains_the_later_ones() -> None:
    assert _choose({1: BUG, 0: LOST}, died(1), Kills()).ended == BUG.ended  # type: ignore[arg-type]
    assert _choose({0: DIVERGED, 1: DIVERGED}, None, Kills()).ended == DIVERGED.ended  # type: ignore[arg-type]


def test_a_rank_that_ends_before_its_attempt_is_a_failure_with_its_message() -> None:
    chosen = _choose({}, died(1), Kills())  # type: ignore[arg-type]
    assert chosen.ended == Ended(RunStatus.FAILED, "rank 1 ended with exit code 1")
    assert chosen.failure is not None
    assert chosen.failure.output == "the last words"
    assert not chosen.metrics


def test_the_memory_is_that_of_the_rank_that_held_most() -> None:
    chosen = _choose({0: GOOD, 1: GOOD._replace(metrics={"peak_memory_gb": 4.0})}, None, Kills())  # type: ignore[arg-type]
    assert chosen == GOOD._replace(metrics={"peak_memory_gb": 4.0})
