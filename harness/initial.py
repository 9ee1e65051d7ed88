"""Where a cell's initial weights come from: a run of another cell, or a file."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.spec import ExperimentSpec, RowSpec
from paradigms.facts import unknown_name


@dataclass(frozen=True)
class FromRun:
    """What the run of the same seed of another cell has kept.

    Attributes:
        row: that cell's row in the same experiment.
        recipe: that cell's recipe.
    """

    cell_id: str
    row: str
    recipe: str

    @property
    def identity(self) -> str:
        """What of it is part of the cell that starts here."""
        return self.cell_id


@dataclass(frozen=True)
class FromFile:
    """Weights in a file, the same for every seed.

    Attributes:
        path: absolute.
        digest: SHA-256 of the content, in hexadecimal digits.
    """

    path: str
    digest: str

    @property
    def identity(self) -> str:
        """What of it is part of the cell that starts here."""
        return self.digest


Initial = FromRun | FromFile


def make_initial(content: Mapping[str, str]) -> Initial:
    """What `dataclasses.asdict` made of it."""
    return FromFile(**content) if "path" in content else FromRun(**content)


def read_file(name: str, rows: Mapping[str, RowSpec]) -> FromFile:
    """The file that a row starts from; a relative path is seen from the working directory.

    Raises:
        ValueError: `name`, which is none of `rows`, is no file either.
    """
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"no such file, and {unknown_name('row', name, tuple(rows))}")
    return FromFile(str(path.absolute()), digest_file(path))


def digest_file(path: Path | str) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inherit(row: RowSpec, rows: Mapping[str, RowSpec]) -> RowSpec:
    """A row that starts from another one is that one but for what it states; any other is itself."""
    source = None if row.init_from is None else rows.get(row.init_from)
    if source is None:
        return row
    return source.model_copy(update={name: getattr(row, name) for name in row.model_fields_set})


def explain_mismatch(spec: ExperimentSpec, row: RowSpec) -> str | None:
    """Why the recipe, which trains from scratch or does not, skips the row; None where it trains it."""
    recipe = spec.recipe
    if recipe.init_recipe is None and row.init_from is not None:
        return f"starts from {row.init_from!r}; recipe {recipe.name!r} trains from scratch"
    if recipe.init_recipe is not None and row.init_from is None:
        return f"no init_from; recipe {recipe.name!r} starts from trained weights"
    return None
