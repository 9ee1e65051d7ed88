"""Writes the tables of an experiment: csv, Markdown and LaTeX."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from harness.files import write_atomically
from harness.report.files import find_folder
from harness.report.latex import to_latex
from harness.report.markdown import to_markdown
from harness.table.column import Column, write_cells
from harness.table.results import Results
from harness.text import to_csv


def write_table(results: Results, folder: Path) -> tuple[Path, ...]:
    """Write `<experiment>.csv`, `.md` and `.tex` below `folder`; returns the paths.

    Claims and effects, if there are any, are written to `<experiment>_claims.csv` and `<experiment>_effects.csv`.
    """
    spec = results.plan.spec
    stem = find_folder(spec, folder) / spec.name
    files = {
        "{}.csv": to_table_csv(results.columns, results.frame),
        **{f"{{}}_{table.stem}.csv": to_table_csv(table.columns, table.frame) for table in results.findings.tables},
        "{}.md": to_markdown(results),
        "{}.tex": to_latex(results),
    }
    paths = {stem.with_name(name.format(stem.name)): content for name, content in files.items()}
    for path, content in paths.items():
        write_atomically(path, content)
    return tuple(paths)


def to_table_csv(columns: Iterable[Column[Any]], frame: pd.DataFrame) -> str:
    """Format a typed frame as csv; lists and dates become text."""
    return to_csv(write_cells(columns, frame))
