"""The table as a short text, shown in the store beside the runs."""

from collections.abc import Iterable

from harness.report.markdown import to_markdown_cell
from harness.report.summary import to_summary
from harness.table.column import Text
from harness.table.results import Results
from harness.text import count_noun, escape_code, escape_markdown

MAX_LENGTH = 8000
"""Maximal length of a tag in MLflow, in characters."""


def to_description(results: Results, *, max_length: int = MAX_LENGTH) -> str:
    """Title, summary and table in Markdown; a long table is cut after as many rows as fit."""
    grid, spec = results.grid, results.plan.spec
    head = [
        f"**{escape_markdown(spec.title)}**\n\n{to_summary(results)}\n",
        _to_line(to_markdown_cell(Text(title)) for title in grid.titles),
        "|---" * len(grid.columns) + "|",
    ]
    lines = [_to_line(map(to_markdown_cell, line)) for line in grid.lines]
    for shown in range(len(lines), -1, -1):
        text = "\n".join([*head, *lines[:shown], "", _describe_rest(len(lines) - shown, spec.name)])
        if len(text) <= max_length:
            return text
    return text[:max_length]


def _to_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _describe_rest(left_out: int, name: str) -> str:
    more = f"{count_noun(left_out, 'further row')}, figures" if left_out else "Figures"
    return f"{more}, how to read it and where it comes from: artifact {escape_code(f'{name}.html')}."
