"""Finds the root of the user's project and reads its `harness.yaml`."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from harness.document import Document, read_document
from harness.spec.field import Line, OneOrMore, Spec

PROJECT = "elsa-ablation"
FILE = "harness.yaml"


class ProjectSpec(Spec):
    """What `harness.yaml` states.

    Attributes:
        plugins: what `--plugin` takes: modules by their import names, or files ending in `.py`, seen from the folder
            of `harness.yaml`.
    """

    plugins: Annotated[tuple[Line, ...], OneOrMore, Field(max_length=100)] = ()


@dataclass(frozen=True)
class Project:
    """A `harness.yaml` that was read.

    Attributes:
        file: its content with source positions.
    """

    file: Document
    spec: ProjectSpec

    def locate(self, plugin: str) -> str:
        """A plug-in as any working directory sees it."""
        return str(self.file.path.parent / plugin) if plugin.endswith(".py") else plugin


def find_root() -> Path:
    """The root of the checkout or project around the working directory; without one the working directory itself."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if _is_root(folder)), here)


def read_project() -> Project | None:
    """Read `harness.yaml` in the root of the project; None where there is none.

    Raises:
        SpecError: a mistake in it, with its place.
    """
    path = find_root() / FILE
    if not path.exists():
        return None
    file = read_document(path)
    return Project(file, file.validate(ProjectSpec))


def _is_root(folder: Path) -> bool:
    """A folder with `harness.yaml`, or as `harness init` and a first run leave it, or a checkout.

    Other stores have no `experiments` beside them.
    """
    if (folder / FILE).is_file() or _is_checkout(folder):
        return True
    return (folder / "mlflow.db").is_file() and (folder / "experiments").is_dir()


def _is_checkout(folder: Path) -> bool:
    try:
        content = tomllib.loads((folder / "pyproject.toml").read_text())
    except (OSError, ValueError):
        return False
    project = content.get("project")
    return isinstance(project, dict) and project.get("name") == PROJECT
