"""The settings that all jobs of one call share. Imports no torch."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.attestation import Digests
from harness.division import divide_batch
from harness.engines.engine import Engine, Job, Resources
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
        self, run: PlannedRun, *, run_id: str = "", tests: bool = True, rehearsal: Rehearsal | None = None
    ) -> RunContext:
        """See `RunContext`; a rehearsal is no run in the store."""
        code, data = self.digests[run.row.cell.id]
        return RunContext(
            tracker=self.tracker,
            spec=self.spec,
            run_id=run_id,
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
        forecast = {} if context.rehearsal is None else context.rehearsal.metrics
        return Job(
            name,
            function,
            (run, context),
            time_limit_seconds=None if minutes is None else 60 * minutes,
            memory_limit_gb=limits.memory_limit_gb,
            resources=self._find_resources(run, forecast.get("seconds")),
            key=_make_key(function, run, context),
        )

    def _find_resources(self, run: PlannedRun, seconds: float | None) -> Resources:
        """As many processes as the recipe states, or as its `device_batch_size` requires on GPUs."""
        recipe, batch_size = self.spec.recipe, run.row.cell.training.batch_size
        needed = divide_batch(batch_size, device_batch_size=recipe.device_batch_size, num_gpus=batch_size).processes
        return Resources(
            processes=recipe.processes or needed,
            takes_fewer=recipe.processes is None,
            minutes=None if seconds is None else seconds / 60,
        )


def _make_key(function: Callable[..., object], run: PlannedRun, context: RunContext) -> str:
    """Equal where the same code would do the same with the same data; see `Job`."""
    limits = context.spec.recipe.limits.model_dump_json()
    content = (context.provenance["code_digest"], context.provenance["data_digest"], str(context.tests), limits)
    digest = hashlib.sha256("\n".join(content).encode()).hexdigest()[:8]
    return f"{function.__name__}-{run.row.cell.id}-{run.seed}-{digest}"
