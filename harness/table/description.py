"""The table as a short text, for a store that shows it beside the runs."""

from collections.abc import Iterable

import pandas as pd

from harness.plan import Plan
from harness.table.display import count_noun, emphasize, to_display
from harness.table.report import escape_cell, to_summary

MAX_LENGTH = 8000
"""Characters of a tag in MLflow."""


def to_description(frame: pd.DataFrame, plan: Plan, *, max_length: int = MAX_LENGTH) -> str:
    """Title, summary and table in Markdown; of a long table as many rows as there is room for, and how many follow."""
    display = emphasize(to_display(frame, plan.spec), proven="**{}**", title="*{}*")
    head = [
        f"**{plan.spec.title}**\n\n{to_summary(frame, plan)}\n",
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
    return f"| {' | '.join(map(escape_cell, cells))} |"


def _tell_rest(left_out: int, name: str) -> str:
    more = f"{count_noun(left_out, 'further row')}, figures" if left_out else "Figures"
    return f"{more}, how to read it and where it comes from: artifact `{name}.html`."
