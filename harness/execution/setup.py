"""The settings that all jobs of one call share. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.attestation import Digests
from harness.engines.engine import Engine, Job
from harness.execution.context import RunContext
from harness.plan import PlannedRun
from harness.plugins import list_plugins
from harness.spec import ExperimentSpec
from harness.trace import Rehearsal
from harness.tracking import Tracker


@dataclass(frozen=True)
class Setup:
    """Where jobs are executed and stored, and under which code and data.

    Attributes:
        provenance: of this checkout and machine, without digests.
        digests: code and data of each cell as they are now, by cell id; a search adds those of its trials.
    """

    spec: ExperimentSpec
    tracker: Tracker
    engine: Engine
    provenance: Mapping[str, str]
    digests: Mapping[str, Digests]
    data_dir: Path | None

    def make_context(
        self, run: PlannedRun, *, parent_id: str = "", tests: bool = True, rehearsal: Rehearsal | None = None
    ) -> RunContext:
        """See `RunContext`; a rehearsal has no parent."""
        code, data = self.digests[run.row.cell.id]
        return RunContext(
            tracker=self.tracker,
            spec=self.spec,
            parent_id=parent_id,
            provenance={**self.provenance, "code_digest": code, "data_digest": data},
            data_dir=self.data_dir,
            threads=self.engine.threads,
            plugins=list_plugins(),
            tests=tests,
            rehearsal=rehearsal,
        )

    def make_job(self, name: str, function: Callable[..., object], run: PlannedRun, context: RunContext) -> Job:
        """The call of a function with a run and its context, under the recipe's limits."""
        limits = self.spec.recipe.limits
        minutes = limits.time_limit_minutes
        return Job(
            name,
            function,
            (run, context),
            time_limit_seconds=None if minutes is None else 60 * minutes,
            memory_limit_gb=limits.memory_limit_gb,
        )
