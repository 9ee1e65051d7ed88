"""The table for a paper: the cells that stand in Markdown, as a `tabular` of the package booktabs."""

from collections.abc import Iterable

import pandas as pd

from harness.spec import ExperimentSpec
from harness.table.display import emphasize, to_display

SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "Δ": r"$\Delta$",
    "γ": r"$\gamma$",
    "λ": r"$\lambda$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "⊙": r"$\odot$",
    "†": r"$^\dagger$",
    "⁹": "$^9$",
    "·": r"$\cdot$",
    "Θ": r"$\Theta$",
    "Ω": r"$\Omega$",
    "—": "---",
}
"""What LaTeX would take for a command, and what its standard fonts lack."""

_TRANSLATION = str.maketrans(SPECIAL)


def to_latex(frame: pd.DataFrame, spec: ExperimentSpec) -> str:
    r"""A `tabular`, to be read with `\input` where the package booktabs is loaded."""
    escaped = to_display(frame, spec).map(escape)
    display = emphasize(escaped, proven=r"\textbf{{{}}}", title=r"\textit{{{}}}")
    lines = [_to_line(row) for row in display.itertuples(index=False)]
    return (
        "\n".join(
            [
                f"% {escape(spec.title)}: {escape(spec.name)}, recipe {escape(spec.recipe.name)}",
                rf"\begin{{tabular}}{{{'l' * len(display.columns)}}}",
                r"\toprule",
                _to_line(escape(title) for title in display.columns),
                r"\midrule",
                *lines,
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )
        + "\n"
    )


def escape(text: str) -> str:
    """The text as LaTeX prints it."""
    return " ".join(text.split()).translate(_TRANSLATION)


def _to_line(cells: Iterable[str]) -> str:
    line = " & ".join(cells) + r" \\"
    return f"{{}}{line}" if line.startswith(("[", "*")) else line  # else an option of the end of the line before
