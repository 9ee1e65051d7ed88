"""The files of a table and of its runs, and the folder that they go to."""

import re
from hashlib import sha256
from pathlib import Path

from harness.spec import ExperimentSpec, Plot

MAX_NAME_LENGTH = 100


def find_folder(spec: ExperimentSpec, results: Path) -> Path:
    """`<results>/<recipe>`; with `--set` `<recipe>+<overrides>`, so that no other results are overwritten."""
    return results / name_folder(spec)


def find_records(spec: ExperimentSpec, results: Path) -> Path:
    """The record file of an experiment: its runs, committed beside its tables."""
    return find_folder(spec, results) / "runs" / f"{spec.name}.jsonl"


def name_folder(spec: ExperimentSpec) -> str:
    """The recipe and the overrides of `--set`, in characters and a length that every file system supports."""
    full = "+".join([spec.recipe.name, *spec.overrides])
    name = re.sub(r"[^\w.,=+-]", "_", full)
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[:MAX_NAME_LENGTH]}~{sha256(full.encode()).hexdigest()[:8]}"


def name_plot(spec: ExperimentSpec, plot: Plot) -> str:
    """The stem of the files of a plot, which are beside the table."""
    return f"{spec.name}-{plot}"
