r"""Text for people, and how each output format escapes what comes from outside.

Names of rows, titles, notes, names of files and messages of errors may have any character. Every format has it on one
line, and control characters as their escapes (`\x1b`): they would move a terminal's cursor, break a csv or an SVG.
"""

import re
from html import escape
from typing import TYPE_CHECKING

from harness.names import to_printable

if TYPE_CHECKING:
    import pandas as pd

NOTHING = "—"
"""Stands where a table has no value."""

_BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")

_CONTROLS = re.compile(
    r"[\x00-\x1f\x7f-\x9f"  # of ASCII and Latin-1
    r"\u200e\u200f\u202a-\u202e\u2066-\u2069"  # turn the direction of writing
    r"\ud800-\udfff\ufeff\ufffe\uffff]"  # no characters: halves of pairs, byte order marks
)

_MARKDOWN = re.compile(r"[\\`*~]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|^\[|^#|#$|^[+-](?=[\s-]|$)")
"""What Markdown gives a meaning: underscores at the edge of a word, brackets of links, beginnings of other blocks."""

_NUMBER = re.compile(r"^(\d+)([.)])(?=\s|$)")
"""Of a list."""

_MARKDOWN_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"})
"""Renderers disagree on a backslash before these."""

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for the beginning of a formula."""

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "`": r"\textasciigrave{}",
        "Δ": r"$\Delta$",
        "γ": r"$\gamma$",
        "λ": r"$\lambda$",
        "Θ": r"$\Theta$",
        "Ω": r"$\Omega$",
        "±": r"$\pm$",
        "×": r"$\times$",
        "⊙": r"$\odot$",
        "·": r"$\cdot$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "→": r"$\to$",
        "≤": r"$\le$",
        "≥": r"$\ge$",
        "−": "$-$",
        "†": r"$^\dagger$",
        "⁹": "$^9$",
        "—": "---",
        "–": "--",
    }
)
"""What LaTeX would take for a command, and what its standard fonts lack."""


def count_noun(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def write_size(size: tuple[int, ...]) -> str:
    """Rows and columns: `14x7`."""
    return "x".join(map(str, size))


def find_control(text: str) -> str | None:
    """The first character that breaks a line or controls a terminal, as its escape; None without any."""
    found = _BREAKS.search(text) or _CONTROLS.search(text)
    return None if found is None else _to_escape(found)


def to_line(text: str) -> str:
    """On one line, without control characters: as plain text, and where a format has no character to escape."""
    return _CONTROLS.sub(_to_escape, _BREAKS.sub(" ", to_printable(text)))


def escape_terminal(text: str) -> str:
    """Lines stay lines; nothing else of the text acts on a terminal."""
    lines = to_printable(text).replace("\t", " ").split("\n")
    return "\n".join(_CONTROLS.sub(_to_escape, line) for line in lines)


def escape_markdown(text: str) -> str:
    """As text of a paragraph, a title or an item; in a table the whole cell goes through `escape_cell` besides."""
    line = _NUMBER.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\g<0>", to_line(text).strip()))
    return line.translate(_MARKDOWN_ENTITIES)


def escape_code(text: str) -> str:
    """As code within Markdown: between more backticks than the text has in a row; an empty one is nothing."""
    line = to_line(text)
    if not line.strip():
        return ""
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if line[0] in "` " or line[-1] in "` " else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def escape_cell(markdown: str) -> str:
    """A cell of a Markdown table, whose text is escaped already: bars would end it."""
    return markdown.replace("|", r"\|")


def escape_html(text: str) -> str:
    """As text or as an attribute of HTML."""
    return escape(to_line(text))


def escape_latex(text: str) -> str:
    """As text of LaTeX; letters that its fonts lack need XeLaTeX or LuaLaTeX."""
    apart = re.sub(r"(?<=-)(?=-)", "\0", " ".join(to_line(text).split()))  # else hyphens join to a dash
    return apart.translate(_LATEX).replace("\0", "{}")


def escape_figure(text: str) -> str:
    """As a text of matplotlib, which takes dollars for mathematics and leaves `_name` out of a legend."""
    label = to_line(text).replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label


def escape_csv(text: str) -> str:
    """As a cell of a csv: an apostrophe before what a spreadsheet would compute; a number is a number."""
    line = to_line(text)
    if not line.lstrip().startswith(_FORMULA):
        return line
    try:
        float(line)
    except ValueError:
        return f"'{line}"
    return line


def to_csv(frame: "pd.DataFrame") -> str:
    """The whole file; numbers stay as they are."""
    import pandas as pd  # not before: specs need no pandas
    from pandas.api.types import is_numeric_dtype

    guarded = frame.rename(columns=escape_csv)
    for position, kind in enumerate(guarded.dtypes):
        if not is_numeric_dtype(kind):
            cells = [escape_csv(x) if isinstance(x, str) else x for x in guarded.iloc[:, position]]
            guarded.isetitem(position, pd.Series(cells, dtype=object).to_numpy())  # 1 beside 2.5 stays 1
    return guarded.to_csv(index=False, lineterminator="\n")


def _to_escape(found: re.Match[str]) -> str:
    code = ord(found[0][0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
