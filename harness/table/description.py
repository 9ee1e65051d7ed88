"""The table as a short text, shown in the store beside the runs."""

from collections.abc import Iterable

import pandas as pd

from harness.plan import Plan
from harness.table.display import count_noun, to_display
from harness.table.report import to_markdown_cells, to_summary
from harness.text import escape_code, escape_markdown

MAX_LENGTH = 8000
"""Characters of a tag in MLflow."""


def to_description(frame: pd.DataFrame, plan: Plan, *, max_length: int = MAX_LENGTH) -> str:
    """Title, summary and table in Markdown; of a long table as many rows as there is room for, and how many follow."""
    display = to_markdown_cells(to_display(frame, plan.spec))
    head = [
        f"**{escape_markdown(plan.spec.title)}**\n\n{to_summary(frame, plan)}\n",
        _to_line(display.columns),
        "|---" * display.shape[1] + "|",
    ]
    lines = [_to_line(row) for row in display.itertuples(index=False)]
    for shown in range(len(lines), -1, -1):
        text = "\n".join([*head, *lines[:shown], "", _tell_rest(len(lines) - shown, plan.spec.name)])
        if len(text) <= max_length:
            return text
    return text[:max_length]


def _to_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _tell_rest(left_out: int, name: str) -> str:
    more = f"{count_noun(left_out, 'further row')}, figures" if left_out else "Figures"
    return f"{more}, how to read it and where it comes from: artifact {escape_code(f'{name}.html')}."
