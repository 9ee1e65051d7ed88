"""The table in LaTeX: a `table` environment for the package booktabs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from harness.cell import ALL
from harness.measure import Measure
from harness.spec import ExperimentSpec
from harness.spec.experiment import SCORE
from harness.table.display import (
    FLOORS_TITLE,
    NOTHING,
    PROVEN,
    TERM_TITLES,
    Row,
    count_noun,
    list_shown,
    name_recipe,
    show_count,
    show_number,
    thin_out,
    to_rows,
)
from harness.table.scores import name_scores
from harness.tasks import find_measure, list_measures
from harness.text import escape_latex

MAX_NAME_LENGTH = 30
"""Characters of a row's name; longer ones are broken into lines."""

MANY_PARTS = 11
"""More are set smaller: a page of A4 or letter with margins of an inch has room for so many."""

NORMAL, SMALL = (
    [size, rf"\setlength{{\tabcolsep}}{{{gap}}}"] for size, gap in ((r"\footnotesize", "3pt"), (r"\scriptsize", "2pt"))
)

TICK = r"$\surd$"

TERM_FORMULAS = dict(zip(TERM_TITLES, (r"$qk$", r"$qr^k$", r"$r^qk$", r"$r^b$"), strict=True))


@dataclass(frozen=True)
class Part:
    """Cells under one title.

    Attributes:
        title: in LaTeX.
        alignment: of the columns that its cells take, as `tabular` has it.
        show: a row's cells in LaTeX, as many as there are columns.
    """

    title: str
    alignment: str
    show: Callable[[Row], Sequence[str]]

    @property
    def width(self) -> int:
        """How many columns it takes."""
        return 1 if self.alignment.startswith("p{") else sum(letter in "lcr" for letter in self.alignment)


def to_latex(frame: pd.DataFrame, spec: ExperimentSpec) -> str:
    r"""A `table` with its caption, to be read with `\input` where the package booktabs is loaded."""
    parts = _make_parts(frame, spec)
    rows = to_rows(frame)
    floors = [_to_line(row, parts) for row in rows if row["is_floor"]]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_to_caption(frame, spec)}}}",
        rf"\label{{tab:{''.join(letter for letter in spec.name if letter.isalnum())}}}",
        *(SMALL if len(parts) > MANY_PARTS else NORMAL),
        rf"\begin{{tabular}}{{{''.join(part.alignment for part in parts)}}}",
        r"\toprule",
        _join(_to_title(part) for part in parts),
        r"\midrule",
        *(_to_line(row, parts) for row in rows if not row["is_floor"]),
        *([r"\midrule", _join([rf"\textit{{{FLOORS_TITLE}}}"]), *floors] if floors else []),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _make_parts(frame: pd.DataFrame, spec: ExperimentSpec) -> list[Part]:
    """In the order of every table; how many replicates a row has is a column only where not all have the same."""
    measure, *others = list_measures(spec)
    shown = list_shown(spec)
    groups: dict[str, list[Part]] = {
        SCORE: [Part(escape_latex(measure.label), "r@{}l", lambda row: _show_score(row, measure))],
        "delta": [
            Part(r"$\Delta$ [95\,\%]", "r@{ }l", lambda row: _show_delta(row, measure)),
            Part("verdict", "l", lambda row: [_show_verdict(row["verdict"])]),
        ],
        "parameterization": _make_ticks(frame),
        "normalization": [Part("normalization", "l", lambda row: [escape_latex(row["normalization"] or NOTHING)])],
        "neighborhood": [Part("neighborhood", "l", lambda row: [escape_latex(row["neighborhood"] or NOTHING)])],
        "params": [Part("params", "r", lambda row: [escape_latex(show_count(row["params"]))])],
        "macs": [Part("MAdds", "r", lambda row: [escape_latex(show_count(row["macs"]))])],
        "throughput": [Part("images/s", "r", lambda row: [_show(row["images_per_second"], ",.0f")])],
        "curve": [
            Part(
                escape_latex(f"val {measure.title} by epoch"),
                "l",
                lambda row: [escape_latex(thin_out(row["val_curve"], measure) or NOTHING)],
            )
        ],
    }
    for other in others:
        groups[other.name] = [Part(escape_latex(other.label), "r", _show_mean(other))]
    parts = [Part("row", r"p{0.3\linewidth}", lambda row: [_break(row["row"])])]
    if frame["row"].str.len().max() <= MAX_NAME_LENGTH:
        parts = [Part("row", "l", lambda row: [escape_latex(row["row"])])]
    for column, group in groups.items():
        parts += group if column in shown else []
        if column == "delta" and not _is_complete(frame):
            parts.append(Part("$n$", "r", lambda row: [f"{row['n']}/{row['seeds']}" if row["seeds"] else "---"]))
    return parts


def _make_ticks(frame: pd.DataFrame) -> list[Part]:
    def show(term: str) -> Callable[[Row], Sequence[str]]:
        return lambda row: [TICK if row[term] == ALL else escape_latex(row[term])]

    parts = [Part(formula, "c", show(term)) for term, formula in TERM_FORMULAS.items()]
    if frame["other_parameterization"].any():
        parts.append(Part("other", r"p{0.1\linewidth}", lambda row: [_break(row["other_parameterization"])]))
    return parts


def _to_caption(frame: pd.DataFrame, spec: ExperimentSpec) -> str:
    """Title, recipe, and a sentence on replicates, interval and test."""
    parts = [f"{spec.title}, recipe {name_recipe(spec)}."]
    counted = f"n = {spec.seeds}" if _is_complete(frame) else f"n of {spec.seeds}"
    told = [f"{find_measure(spec).heading} on the test set is the mean ± standard deviation over {counted} seeds"]
    tests = int(frame["holm_p"].notna().sum())
    if "delta" in spec.columns and tests:
        told.append(
            f"Δ is the mean difference to {spec.baseline} seed by seed with its 95 % Student-t interval, and bold are "
            "the verdicts for which the paired t-test rejects equality at 5 % after Holm's correction over "
            f"{count_noun(tests, 'comparison')}"
        )
    elif "delta" in spec.columns:
        told.append(f"Δ is the mean difference to {spec.baseline}, too few seeds for an interval or a test")
    return escape_latex(" ".join([*parts, f"{'; '.join(told)}."]))


def _is_complete(frame: pd.DataFrame) -> bool:
    planned = frame[frame["seeds"] > 0]
    return bool((planned["n"] == planned["seeds"]).all())


def _show_score(row: Row, measure: Measure) -> Sequence[str]:
    names = name_scores(measure)
    spread: str = "" if pd.isna(row[names.std]) else rf" $\pm$ {row[names.std]:{measure.format}}"
    return [_show(row[names.mean], measure.format), spread]


def _show_mean(measure: Measure) -> Callable[[Row], Sequence[str]]:
    return lambda row: [_show(row[name_scores(measure).mean], measure.format)]


def _show_delta(row: Row, measure: Measure) -> Sequence[str]:
    low, high, form = row["delta_low"], row["delta_high"], f"+{measure.format}"
    interval: str = f"[{_show(low, form)}, {_show(high, form)}]" if pd.notna(low) else ""
    return [_show(row["delta"], form), interval]


def _break(text: str) -> str:
    """Places to break for a column of fixed width: names of levels have no blanks."""
    return escape_latex(text).replace("+", r"+\allowbreak{}").replace(r"\_", r"\_\allowbreak{}")


def _show(value: float, form: str) -> str:
    """With a minus, not a hyphen."""
    shown = show_number(value, form)
    return "---" if shown == NOTHING else f"${shown.replace(',', '{,}')}$"


def _show_verdict(verdict: str) -> str:
    return rf"\textbf{{{verdict}}}" if verdict in PROVEN else verdict or "---"


def _to_title(part: Part) -> str:
    return part.title if part.width == 1 else rf"\multicolumn{{{part.width}}}{{c}}{{{part.title}}}"


def _to_line(row: Row, parts: Iterable[Part]) -> str:
    return _join(cell for part in parts for cell in part.show(row))


def _join(cells: Iterable[str]) -> str:
    line = " & ".join(cells) + r" \\"
    return f"{{}}{line}" if line.startswith(("[", "*")) else line  # else an option of the end of the line before
