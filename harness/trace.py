"""What a rehearsal leaves behind: a trace that is compared bit for bit, and what a whole run would take.

Imports no torch.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.cell import Cell
from harness.environment import ENVIRONMENT, STEP
from harness.record import RunStatus

FORMAT = 1
"""Of a trace; traces of different formats cannot be compared."""

MAX_STEPS = 32
MAX_IMAGES = 2_000
"""A run of no more optimizer steps, and no more evaluated images over all epochs, is as short as its rehearsal."""

PLACE = (*ENVIRONMENT, *STEP, "kernels")
"""Where a rehearsal was made, as far as it decides rounding: an environment and its kernels."""

TRACE, TRACED_SEED = "trace", "traced_seed"
"""What a run's provenance says of its cell's rehearsal: the digest of its trace, and the replicate."""


@dataclass(frozen=True)
class Rehearsal:
    """A short run of a cell by one version of the code.

    Attributes:
        seed: the replicate that was rehearsed.
        environment: as in a run's provenance.
        status: how it ended; `ok` and `diverged` have a trace.
        detail: why it did not end well.
        output: the traceback of a failure.
        digest: of the trace; empty where there is none.
        trace: what was computed, in JSON's types; see `harness.rehearsal`. A store gives it when it is asked for.
        metrics: `seconds` and `peak_memory_gb` of a whole run as they are expected, and `took`, seconds of this one.
    """

    cell_id: str
    seed: int
    code_digest: str
    data_digest: str
    environment: Mapping[str, str]
    status: RunStatus = RunStatus.OK
    detail: str = ""
    output: str = ""
    digest: str = ""
    trace: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    def is_comparable(self, other: "Rehearsal") -> bool:
        """Whether both have a trace, of the same replicate in the same environment."""
        same = (self.seed, self.environment) == (other.seed, other.environment)
        return same and bool(self.trace) and bool(other.trace)

    def to_provenance(self) -> dict[str, str]:
        """What a run of this cell records of it."""
        return {TRACE: self.digest, TRACED_SEED: str(self.seed)} if self.digest else {}


def digest_trace(trace: Mapping[str, Any]) -> str:
    """The format, and sixteen hexadecimal digits of the content."""
    content = json.dumps(trace, sort_keys=True, separators=(",", ":"))
    return f"{FORMAT}:{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def find_place(provenance: Mapping[str, str]) -> dict[str, str]:
    """Where a run was made, of its provenance."""
    return {name: provenance[name] for name in PLACE if name in provenance}


def is_short(cell: Cell) -> bool:
    """Whether a run of a cell is no longer than its rehearsal, and is its own."""
    data, training = cell.data, cell.training
    if data.train_images is None or data.test_images is None or not data.val_images:
        return False
    steps = data.train_images // training.batch_size * training.total_epochs
    evaluated = data.val_images * training.total_epochs
    return steps <= MAX_STEPS and max(evaluated, data.test_images) <= MAX_IMAGES
