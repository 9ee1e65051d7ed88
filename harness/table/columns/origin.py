"""Columns of where a row comes from."""

import shlex
from collections.abc import Callable

import pandas as pd

from harness.table.column import Column, Kind
from harness.table.entry import Entry
from harness.table.format import join

PROVENANCE = (
    "code_digest",
    "data_digest",
    "commit",
    "dirty",
    "python",
    "torch",
    "torchvision",
    "timm",
    "mlflow",
    "numpy",
    "device",
    "threads",
    "kernels",
    "instructions",
)


def make_origin() -> tuple[Column[Entry], ...]:
    """Experiment, recipe, cell, provenance and date."""

    def get(name: str) -> Callable[[Entry], tuple[str, ...]]:
        return lambda entry: entry.origins(name)

    return (
        Column("experiment", lambda entry: entry.spec.name),
        Column("recipe", lambda entry: entry.spec.recipe.name),
        Column("overrides", lambda entry: entry.spec.overrides, Kind.LIST, shlex.join),
        Column("cell_id", lambda entry: None if entry.row is None else entry.row.cell.id),
        *(Column[Entry](name, get(name), Kind.LIST, join(" | ")) for name in PROVENANCE),
        Column(
            "last_run",
            lambda entry: entry.last_run,
            Kind.DATE,
            lambda date: "" if pd.isna(date) else show_date(date),
        ),
    )


def show_date(date: pd.Timestamp) -> str:
    """`2026-11-18 11:06 UTC`."""
    return date.strftime("%Y-%m-%d %H:%M UTC")
