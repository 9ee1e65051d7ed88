"""A table as plain values, for `--json`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.plan import Plan
from harness.table.findings import Findings


def to_plain(frame: pd.DataFrame, plan: Plan, findings: Findings, files: Sequence[Path]) -> dict[str, Any]:
    """The columns of the csv files under their names; what is missing there is None."""
    spec = plan.spec
    return {
        "experiment": spec.name,
        "title": spec.title,
        "recipe": spec.recipe.name,
        "overrides": list(spec.overrides),
        "rows": _to_rows(frame),
        "claims": _to_rows(findings.claims),
        "effects": _to_rows(findings.effects),
        "left_out": list(findings.left_out),
        "files": list(files),
    }


def _to_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Of Python's own types, so that any JSON writer takes them."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]
