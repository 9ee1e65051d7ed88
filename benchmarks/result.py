"""The measured result of one case."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from benchmarks.case import Case


@dataclass(frozen=True)
class Probe:
    """One run of a case in a process of its own; sizes in bytes.

    Attributes:
        saved: tensors that the forward pass keeps for the backward pass, each storage once.
        saved_beyond_inputs: of these, what is no input, table or parameter.
        peak_growth: the most memory that forward and backward (or forward alone) added to what the inputs take.
        inputs: all that goes in.
        outputs: what comes out.
        seconds: that the run took, its first of this size.
        note: the workload's.
    """

    saved: int
    saved_beyond_inputs: int
    peak_growth: int
    inputs: int
    outputs: int
    multiply_adds: int | None
    trains: bool
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Lap:
    """Seconds that one run took in one round, on both clocks, and the round."""

    round: int
    cpu: float
    wall: float


@dataclass
class Result:
    """A case with what came of it; `reason` says why there is nothing."""

    case: Case
    probe: Probe | None = None
    reason: str = ""
    forward: list[Lap] = field(default_factory=list)
    train: list[Lap] = field(default_factory=list)

    @property
    def note(self) -> str:
        """What the row says beside its figures: the workload's note, a missing backward pass, or why it did not run."""
        own = [] if self.probe is None else [self.probe.note, "" if self.probe.trains else "forward alone"]
        return "; ".join(part for part in (*own, self.reason) if part)

    @property
    def rounds(self) -> int:
        """How often it was timed."""
        return len(self.forward)


def to_median(laps: Sequence[Lap], clock: str) -> float | None:
    """Over the rounds, in seconds."""
    return median(getattr(lap, clock) for lap in laps) if laps else None


def to_spread(laps: Sequence[Lap], clock: str) -> float | None:
    """Between the quartiles of the rounds, in seconds."""
    if len(laps) < 2:
        return None
    low, high = np.quantile([getattr(lap, clock) for lap in laps], [0.25, 0.75])
    return float(high - low)
