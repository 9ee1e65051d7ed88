"""The frozen outcome of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.errors import Cause
from harness.spec.data import DEFAULT_TASK


class RunStatus(StrEnum):
    """How a run ended. All but `failed` (a bug) and `interrupted` are results."""

    OK = "ok"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def is_result(self) -> bool:
        """Whether the outcome stands: a bug and an interruption are done again."""
        return self not in (RunStatus.FAILED, RunStatus.INTERRUPTED)

    @property
    def is_bad(self) -> bool:
        """Whether the outcome stands and is no measurement."""
        return self.is_result and self != RunStatus.OK


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch measured.

    Attributes:
        epoch: 1-based.
        step: optimizer steps done so far.
        metrics: `split/metric`, in the unit of the measure or in seconds: `train/loss`, `val/loss`,
            `train/images_per_second` and, of every measure of the task, `val/MEASURE`.
    """

    epoch: int
    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Record:
    """One (cell, replicate) executed.

    Attributes:
        metrics: final values: `test/MEASURE` and `val/MEASURE`, `train/images_per_second`, `params`, `macs` (per
            image), `seconds`, `peak_memory_gb`; `val/images` and `val/chance`, the number of validation images and
            the score of guessing in the task's first measure. A run without a result has the values that it reached.
        curve: one entry per epoch.
        provenance: `commit`, `dirty`, `code_digest`, `data_digest`, `torch`, `timm`, `python`, `device`, `threads`,
            `kernels`, `instructions`; `init_from` if training started from given weights.
        status_detail: the value that was not finite, or the message of a failure; otherwise empty.
        step: the optimizer step (0-based) of a divergence.
        cause: of a divergence: which numbers were not finite; None where an earlier version did not record it.
        module: the path of the first module with such a gradient or weight; empty otherwise.
        limits: the limits that applied: `time_limit_minutes`, `memory_limit_gb`.
        run_id: the id in the tracking store; None if the run is not stored.
        end_time: seconds since the epoch.
        task: what the model was trained and scored on.
    """

    cell_id: str
    row: str
    seed: int
    status: RunStatus
    metrics: Mapping[str, float]
    curve: tuple[EpochMetrics, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    status_detail: str = ""
    step: int | None = None
    cause: Cause | None = None
    module: str = ""
    limits: Mapping[str, float] = field(default_factory=dict)
    run_id: str | None = None
    end_time: float = 0.0
    task: str = DEFAULT_TASK

    @property
    def is_untested(self) -> bool:
        """Whether it succeeded without a look at the test set, as trials of a search do: no table may count it."""
        return self.status == RunStatus.OK and not any(name.startswith("test/") for name in self.metrics)
