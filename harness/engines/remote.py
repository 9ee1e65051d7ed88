"""One job on a host that is not its caller's: the engine `local` with one worker, on what the host has been given."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from harness.engines.capacity import Capacity, Needs
from harness.engines.engine import Job, Resources
from harness.engines.imports import Imports
from harness.engines.local import LocalEngine, list_gpus
from harness.errors import EngineError

Grace = Annotated[float, Field(gt=0, le=3600)]
"""Seconds between the request to end and the kill: a run finishes its step and writes a checkpoint."""

GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class RemoteJob:
    """A job with all that another host needs to execute it as its caller would; it may be pickled.

    Attributes:
        share: what a process gets whose job states nothing.
        imports: of the caller; the job's process refuses to execute other code.
        preload: see `LocalEngine`, as for the next one.
        grace_seconds: see there.
    """

    job: Job
    share: Resources
    imports: Imports
    preload: Sequence[str]
    grace_seconds: float

    @property
    def needs(self) -> Needs:
        """The resources of the job."""
        return Needs.of(self.job.resources, self.share)

    def build_engine(self) -> LocalEngine:
        """The engine on this host, which gives the job every GPU that it sees here."""
        needs = self.needs
        capacity = Capacity(needs.cpus, gpus=list_gpus() if needs.gpus else (), share=self.share)
        return LocalEngine(
            workers=1,
            preload=self.preload,
            capacity=capacity,
            imports=self.imports,
            grace_seconds=self.grace_seconds,
        )


def require_extra(engine: str, package: str) -> None:
    """Find out whether the package of an engine is installed.

    Raises:
        EngineError: it is not.
    """
    if importlib.util.find_spec(package) is None:
        raise EngineError(f"--engine {engine} needs the package {package}: pip install 'elsa-ablation[{engine}]'")
