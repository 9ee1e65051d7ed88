"""The state of an unfinished run, kept by its process and its parent so that either can close it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from harness.checkpoint import Checkpoint
from harness.errors import Cause
from harness.plan import PlannedRun
from harness.processes import is_crash
from harness.record import EpochMetrics, Record, RunStatus
from harness.spec import LimitsSpec
from harness.trace import Rehearsal
from harness.tracking.process import ProcessIdentity


@dataclass(frozen=True)
class Opened:
    """The run has its process.

    Attributes:
        provenance: with what this process alone knows.
        continues: whether it goes on from a checkpoint.
        process: this one.
    """

    provenance: Mapping[str, str]
    continues: bool
    process: ProcessIdentity = field(default_factory=ProcessIdentity.current)


@dataclass(frozen=True)
class Measured:
    """Some of the final metrics."""

    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Resumed:
    """The run continues from a checkpoint.

    Attributes:
        attempts: how often the run was started, this time included.
        seconds_lost: what the earlier attempts did after their last checkpoint, and starting again took.
    """

    checkpoint: Checkpoint
    attempts: int
    seconds_lost: float


@dataclass(frozen=True)
class Raised:
    """The run failed.

    Attributes:
        origin: the type of the exception, and the line that raised it: the same for every run that has this bug.
        output: its traceback.
    """

    origin: str
    output: str


@dataclass(frozen=True)
class Kept:
    """A file that the run leaves behind, such as its weights.

    Attributes:
        name: of the file.
    """

    name: str
    content: bytes


@dataclass(frozen=True)
class Warned:
    """A warning for the user at the terminal."""

    text: str


@dataclass(frozen=True)
class Traced:
    """The run was its own rehearsal."""

    rehearsal: Rehearsal


RunMessage = Opened | Resumed | Measured | EpochMetrics | Kept | Raised | Warned | Traced


def classify_signal(number: int, *, is_out_of_memory: bool) -> RunStatus:
    """How a run ends whose process, or one that loads its images, was killed by a signal."""
    if is_out_of_memory:
        return RunStatus.OUT_OF_MEMORY
    return RunStatus.FAILED if is_crash(number) else RunStatus.INTERRUPTED


@dataclass
class OpenRun:
    """A run that has started and not ended."""

    run: PlannedRun
    limits: LimitsSpec
    provenance: Mapping[str, str]
    run_id: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    curve: list[EpochMetrics] = field(default_factory=list)
    started: float = field(default_factory=time.time)
    origin: str = ""

    def restart(self) -> None:
        """Its process starts, perhaps on another host after the loss of the first: what was reported is void."""
        self.metrics, self.curve, self.started, self.origin = {}, [], time.time(), ""

    def add(self, message: RunMessage) -> None:
        """Add a message of the run's process."""
        match message:
            case Opened():
                self.provenance = message.provenance
            case Resumed():
                self.curve, self.started = list(message.checkpoint.curve), time.time() - message.checkpoint.seconds
                self.metrics |= {"attempts": float(message.attempts), "seconds_lost": message.seconds_lost}
            case Measured():
                self.metrics.update(message.metrics)
            case EpochMetrics():
                self.curve.append(message)
            case Raised():
                self.origin = message.origin
            case Traced():
                self.provenance = {**self.provenance, **message.rehearsal.to_provenance()}

    def to_record(
        self,
        status: RunStatus,
        detail: str = "",
        step: int | None = None,
        cause: Cause | None = None,
        module: str = "",
    ) -> Record:
        """The frozen outcome; of a run without a result it has the metrics that were reached."""
        now = time.time()
        return Record(
            cell_id=self.run.row.cell.id,
            row=self.run.row.name,
            seed=self.run.seed,
            status=status,
            metrics={**self._summarize_curve(), "seconds": now - self.started, **self.metrics},
            curve=tuple(self.curve),
            provenance=self.provenance,
            status_detail=detail,
            step=step,
            cause=cause,
            module=module,
            limits=self.limits.model_dump(exclude_none=True),
            run_id=self.run_id,
            end_time=now,
            task=self.run.row.cell.data.task,
        )

    def _summarize_curve(self) -> dict[str, float]:
        if not self.curve:
            return {}
        speeds = [epoch.metrics["train/images_per_second"] for epoch in self.curve]
        return {**self.curve[-1].metrics, "train/images_per_second": median(speeds)}
