"""The table in LaTeX: a `table` environment for the package booktabs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from string import ascii_lowercase
from typing import Any

from harness.report.files import name_folder
from harness.report.summary import name_recipe
from harness.spec import ExperimentSpec
from harness.table.column import Column, Latex, Row, select_shown
from harness.table.columns import list_shown
from harness.table.columns.outcomes import explain_mark, is_complete, list_marks
from harness.table.columns.scores import describe_placebo
from harness.table.format import break_latex
from harness.table.results import FLOORS_TITLE, Results
from harness.text import count_noun, escape_latex

MANY_COLUMNS = 11
"""A table with more columns uses a smaller font: this many fit on A4 or letter with margins of one inch."""

NORMAL, SMALL = (
    [size, rf"\setlength{{\tabcolsep}}{{{gap}}}"] for size, gap in ((r"\footnotesize", "3pt"), (r"\scriptsize", "2pt"))
)


def to_latex(results: Results) -> str:
    r"""A `table` with its caption, for `\input` in a document that loads the package booktabs.

    Cells can be split at an alignment, such as before ±, which tabulate and pandas do not support.
    """
    frame, spec = results.frame, results.plan.spec
    shown = select_shown(results.columns, frame, list_shown(spec))
    parts = [_Part(column, column.latex, results) for column in shown if column.latex and column.latex.when(frame)]
    marks = dict(zip(list_marks(results), ascii_lowercase, strict=False))
    lines = [
        to_marker(spec),
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_to_caption(results)}}}",
        rf"\label{{tab:{''.join(letter for letter in spec.name if letter.isalnum())}}}",
        *(SMALL if len(parts) > MANY_COLUMNS else NORMAL),
        rf"\begin{{tabular}}{{{''.join(part.alignment for part in parts)}}}",
        r"\toprule",
        _join(part.title for part in parts),
        r"\midrule",
        *(_to_line(row, parts, marks) for row in results.rows),
        *([r"\midrule", _join([rf"\textit{{{FLOORS_TITLE}}}"])] if results.floors else []),
        *(_to_line(row, parts, marks) for row in results.floors),
        r"\bottomrule",
        r"\end{tabular}",
        *_list_footnotes(results, marks),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def to_marker(spec: ExperimentSpec) -> str:
    """The comment before a table, by which `find_markers` finds it in a document."""
    return f"% harness: table of {spec.name} in {name_folder(spec)}"


def find_markers(text: str) -> list[re.Match[str]]:
    """The comments of `to_marker` in a document; each match has the groups `name` and `folder`."""
    return list(re.finditer(r"^[ \t]*% harness: table of (?P<name>.+) in (?P<folder>\S+)$", text, re.MULTILINE))


class _Part:
    """A column in LaTeX; long texts are broken if the column states a width."""

    def __init__(self, column: Column[Any], latex: Latex, results: Results) -> None:
        self.column = column
        longest = max((len(column.show(row)) for row in (*results.rows, *results.floors)), default=0)
        self.is_broken = latex.width is not None and longest > latex.max_length
        self.alignment = rf"p{{{latex.width:g}\linewidth}}" if self.is_broken else latex.alignment
        title = escape_latex(column.heading) if latex.title is None else latex.title
        width = 1 if self.is_broken else sum(letter in "lcr" for letter in latex.alignment)
        self.title = title if width == 1 else rf"\multicolumn{{{width}}}{{c}}{{{title}}}"

    def show(self, row: Row) -> Sequence[str]:
        return [break_latex(self.column.show(row))] if self.is_broken else self.column.show_latex(row)


def _to_caption(results: Results) -> str:
    """Title, recipe, and a sentence on replicates, interval and test."""
    frame, spec = results.frame, results.plan.spec
    parts = [f"{spec.title}, recipe {name_recipe(spec)}."]
    course, counted = results.course, f"n = {spec.seeds}" if is_complete(frame) else f"n of {spec.seeds}"
    if course is not None:
        counted = f"n = {course.looks[0].seeds} to {course.looks[-1].seeds}"
    sentences = [f"{results.measure.heading} on the test set is the mean ± standard deviation over {counted} seeds"]
    tests = results.num_tests
    if "delta" in spec.columns and tests:
        if frame["is_best"].any():
            sentences.append("bold means are the best and those that Dunnett's test cannot separate from it at 5 %")
        sentences.append(
            f"Δ is the difference to {spec.baseline} over equal seeds with its simultaneous 95 % interval; bold "
            f"verdicts are proven at 5 % by Dunnett's step-down test over {count_noun(tests, 'comparison')}"
            f"{_to_rule(results)}"
        )
    elif "delta" in spec.columns:
        sentences.append(f"Δ is the mean difference to {spec.baseline}, too few seeds for an interval or a test")
    placebo = [] if results.plan.placebo is None else [describe_placebo(results)]
    return escape_latex(" ".join([*parts, f"{'; '.join(sentences)}.", *placebo]))


def _to_rule(results: Results) -> str:
    """The sentence on the looks that share the error rate."""
    if results.course is None:
        return ""
    return f" and {count_noun(len(results.course.looks), 'look')}, seeds being added until a row is resolved"


def _list_footnotes(results: Results, letters: Mapping[str, str]) -> list[str]:
    """The explanation of every mark, by the letter at the names of its rows."""
    if not letters:
        return []
    sentences = [rf"$^{{{letters[mark]}}}$~{escape_latex(explain_mark(mark, results))}" for mark in letters]
    return [r"\par\smallskip", rf"\parbox{{\linewidth}}{{\scriptsize {' '.join(sentences)}}}"]


def _to_line(row: Row, parts: Iterable[_Part], letters: Mapping[str, str]) -> str:
    cells = [cell for part in parts for cell in part.show(row)]
    own = ",".join(letters[mark] for mark in row["marks"] if mark in letters)
    if own:
        cells[0] += rf"$^{{{own}}}$"
    return _join(cells)


def _join(cells: Iterable[str]) -> str:
    line = " & ".join(cells) + r" \\"
    return f"{{}}{line}" if line.startswith(("[", "*")) else line  # else it would be an argument of the preceding \\
