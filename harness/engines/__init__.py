"""Where runs execute. A new engine is one file, one entry here and one subclass of the contract test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from harness.document import read_document
from harness.engines.engine import Engine
from harness.engines.local import LocalOptions
from harness.engines.options import EngineOptions, Setting
from harness.engines.ray import RayOptions
from harness.engines.slurm import SlurmOptions
from harness.errors import SpecError
from paradigms.facts import unknown_name

ENGINES: dict[str, type[EngineOptions]] = {"local": LocalOptions, "slurm": SlurmOptions, "ray": RayOptions}
"""The options of each engine, which build it."""

DEFAULT = "local"


def make_engine(
    name: str = DEFAULT,
    options: Path | None = None,
    *,
    workers: int | Literal["auto"] | None = None,
    recipe_workers: int = 1,
    preload: Sequence[str] = (),
    folder: Path,
) -> Engine:
    """The engine of a name with its options.

    Args:
        name: one of `ENGINES`.
        options: a YAML file; None: the defaults.
        workers: see `Setting`, as for the rest.
        recipe_workers: see there.
        preload: see there.
        folder: see there.

    Raises:
        SpecError: a mistake in the file, with its place, or an unknown name.
        EngineError: the engine cannot be used here.
    """
    if name not in ENGINES:
        raise SpecError(unknown_name("engine", name, tuple(ENGINES)))
    kind = ENGINES[name]
    chosen = kind() if options is None else read_document(options).validate(kind)
    return chosen.build(Setting(workers, recipe_workers, preload, folder))
