"""Options of an engine, from a small YAML file; those of each engine are in its own file."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from harness.engines.engine import Engine
from harness.spec.field import Spec

Workers = Annotated[int, Field(ge=1, le=1_000_000)] | Literal["auto"]
"""Jobs at once; `auto`: as many as fit."""


@dataclass(frozen=True)
class Setting:
    """What an engine gets from the command that uses it.

    Attributes:
        workers: what the command line says; None: nothing.
        recipe_workers: what the recipe says, for one machine.
        preload: modules that a process imports before it executes a job.
        folder: the folder of the store, where an engine keeps what outlives the command.
    """

    workers: int | Literal["auto"] | None
    recipe_workers: int
    preload: Sequence[str]
    folder: Path


class EngineOptions(Spec):
    """What the options of all engines have in common.

    Attributes:
        workers: jobs at once; `--workers` replaces it.
    """

    workers: Workers | None = None

    @abstractmethod
    def build(self, setting: Setting) -> Engine:
        """The engine.

        Raises:
            EngineError: it cannot be used here.
        """
