"""A table as plain values, for `--json`."""

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import pandas as pd

from harness.table.column import to_rows
from harness.table.results import Results


def to_plain(results: Results, files: Sequence[Path]) -> dict[str, Any]:
    """The columns of the csv files by name; lists stay lists, and missing values are None."""
    spec, findings = results.plan.spec, results.findings
    return {
        "experiment": spec.name,
        "title": spec.title,
        "recipe": spec.recipe.name,
        "overrides": list(spec.overrides),
        "rows": _to_rows(results.frame),
        "claims": _to_rows(findings.claims.frame),
        "effects": _to_rows(findings.effects.frame),
        "left_out": list(findings.left_out),
        "files": list(files),
    }


def _to_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{name: _to_value(value) for name, value in row.items()} for row in to_rows(frame.astype(object))]


def _to_value(value: Any) -> Any:
    """Convert a value to Python's built-in types for JSON."""
    if isinstance(value, list | tuple):
        return [_to_value(part) for part in value]
    if isinstance(value, Mapping):
        return {name: _to_value(part) for name, part in value.items()}
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    return None if pd.isna(value) else value
