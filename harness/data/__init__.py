"""Datasets and their loaders, one file per family. Torch is imported only when images are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data.families import DATASETS
from harness.data.family import Data, Description, Family
from harness.data.label_maps import digest_label_maps
from harness.errors import DataError, SpecError
from harness.spec import DataSpec, TrainingSpec
from harness.tasks import TASKS
from harness.tasks.task import LABELS
from paradigms.facts import unknown_name

if TYPE_CHECKING:
    import torch

__all__ = ["DATASETS", "Data", "Description", "check_data", "data_digest", "describe_data", "fetch_data", "load_data"]


def check_data(spec: DataSpec, training: TrainingSpec, *, data_dir: Path | None) -> None:
    """Find out before any run whether the files are there and can give what the recipe asks for.

    What is in the files is not looked at: `describe_data` does that, and `load_data` again of all that it reads.

    Raises:
        SpecError: there is no such dataset.
        DataError: they cannot; the message says why and names the field or the file.
    """
    family = _get_family(spec.name)
    has, needs = getattr(family, "truth", LABELS), TASKS[spec.task].truth
    if has != needs:
        raise DataError(f"data.task: {spec.task} needs {needs}, {spec.name} has {has}")
    family.check_data(spec, training, data_dir=data_dir)


def load_data(
    spec: DataSpec, training: TrainingSpec, *, replicate: int, data_dir: Path | None, device: torch.device
) -> Data:
    """The images of one run, whose recipe `check_data` has accepted; files are checked as they are read.

    Which images are trained on, validated with and tested on is fixed by `spec` alone; order and augmentation follow
    the replicate, so that every row of a table sees the same.

    Raises:
        DataError: files are missing or damaged.
    """
    return _get_family(spec.name).load_data(spec, training, replicate=replicate, data_dir=data_dir, device=device)


def data_digest(spec: DataSpec, training: TrainingSpec, *, data_dir: Path | None) -> str:
    """A digest of the files that a run reads, without decoding them: of images, with label maps `IMAGES+MAPS`.

    Raises:
        SpecError: there is no such dataset.
        DataError: the files are missing.
    """
    images = _get_family(spec.name).digest_files(data_dir, spec)
    return images if training.token_labels is None else f"{images}+{digest_label_maps(data_dir)}"


def describe_data(name: str, data_dir: Path | None, *, spec: DataSpec | None = None) -> Description:
    """What there is of a family, or of what a recipe asks of it, and where; never raises for missing files."""
    return _get_family(name).describe(data_dir, spec)


def fetch_data(spec: DataSpec, data_dir: Path | None) -> Iterator[str]:
    """Get what a family can fetch and what is not there yet; yields a sentence before each step.

    Raises:
        SpecError: there is no such dataset.
        DataError: fetching failed on the way.
    """
    return _get_family(spec.name).fetch(data_dir)


def _get_family(name: str) -> Family:
    if name not in DATASETS:
        raise SpecError(unknown_name("dataset", name, tuple(DATASETS)), key="data.name")
    return DATASETS[name]
