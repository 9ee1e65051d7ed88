"""A column of a table: its values, and how csv, Markdown, HTML, LaTeX and the terminal show them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import pandas as pd

from harness.table.format import show_in_math, show_number
from harness.text import NOTHING, escape_latex

if TYPE_CHECKING:
    from harness.table.results import Results

Item_contra = TypeVar("Item_contra", contravariant=True)
"""The type of the items that rows are computed from."""

Item = TypeVar("Item")

Row = Mapping[str, Any]
"""A row of a frame, its values by column."""


class Kind(Enum):
    """The type of a column's values: pandas' dtype (None: Python objects), and the missing value."""

    TEXT = (None, "")
    MAYBE_TEXT = None, None
    LIST = None, ()
    MAPPING = None, dict[int, Any]()
    NUMBER = "float64", None
    COUNT = "Int64", None
    INDEX = "int64", None
    FLAG = "bool", False
    MAYBE_FLAG = "boolean", None
    DATE = "datetime64[us, UTC]", None

    def __init__(self, dtype: str | None, missing: Any) -> None:
        self.dtype = dtype
        self.missing = missing


class Place(IntEnum):
    """Groups of columns in reports, in order; within a group, columns have the order of the csv."""

    RESULT = 0
    VERDICT = 1
    COUNT = 2
    TERMS = 3
    LEVELS = 4
    PAPER = 5
    SOURCE = 6
    TEST = 7
    NOTES = 8


@dataclass(frozen=True)
class Latex:
    r"""How LaTeX shows a column.

    Attributes:
        alignment: alignment of its cells, in the syntax of `tabular`.
        title: title in LaTeX; None: the title of the column.
        cells: the cells of a row in LaTeX, as many as `alignment` has columns; None: the text of the column.
        width: width of a column that breaks long texts, as a share of `\linewidth`.
        max_length: maximal number of characters of a text that is not broken.
        when: whether a frame has the column.
    """

    alignment: str = "l"
    title: str | None = None
    cells: Callable[[Row], Sequence[str]] | None = None
    width: float | None = None
    max_length: int = 0
    when: Callable[[pd.DataFrame], bool] = lambda _: True


@dataclass(frozen=True)
class Note:
    """An explanation of a column below the table, in Markdown; notes are sorted by `place`."""

    place: int
    text: Callable[[Results], Iterable[str]]


@dataclass(frozen=True)
class Column(Generic[Item_contra]):
    """A column of tables.

    Attributes:
        name: name in the frame and in csv.
        value: computes the value from the item of a row; None: the value is missing.
        kind: the type of its values.
        write: formats a value for csv; None: as pandas does.
        title: title in reports; empty: only csv has the column.
        unit: shown after the title.
        text: formats the value of a row for reports; None: by `form`, missing values as a dash.
        form: format of numbers in reports.
        key: name in an experiment's `columns` that selects the column; empty: always shown.
        when: whether reports show the column of a frame.
        place: where it is shown.
        is_proven: whether the text of a row is emphasized as significant.
        on_terminal: whether the terminal shows the column.
        latex: format in LaTeX; None: LaTeX omits the column.
        note: explanation below the table.
    """

    name: str
    value: Callable[[Item_contra], Any]
    kind: Kind = Kind.TEXT
    write: Callable[[Any], str] | None = None
    title: str = ""
    unit: str = ""
    text: Callable[[Row], str] | None = None
    form: str = ""
    key: str = ""
    when: Callable[[pd.DataFrame], bool] = lambda _: True
    place: Place = Place.LEVELS
    is_proven: Callable[[Row], bool] = lambda _: False
    on_terminal: bool = True
    latex: Latex | None = None
    note: Note | None = None

    @property
    def heading(self) -> str:
        """Title and unit: `top-1, %`."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def show(self, row: Row) -> str:
        """The text of a row in reports."""
        if self.text is not None:
            return self.text(row)
        return show_number(row[self.name], self.form) if self.form else str(row[self.name]) or NOTHING

    def show_latex(self, row: Row) -> Sequence[str]:
        """The cells of a row in LaTeX."""
        if self.latex is not None and self.latex.cells is not None:
            return self.latex.cells(row)
        if self.text is None and self.form:
            return [show_in_math(row[self.name], self.form)]
        text = escape_latex(self.show(row))
        return [rf"\textbf{{{text}}}" if self.is_proven(row) else text]


class Emphasis(Enum):
    """How a text is emphasized."""

    NONE = "none"
    PROVEN = "proven"
    TITLE = "title"


class Text(NamedTuple):
    """A cell of a report."""

    text: str
    emphasis: Emphasis = Emphasis.NONE


@dataclass(frozen=True)
class Grid:
    """A table of a report: the columns that are shown, and one text per column in every line."""

    columns: tuple[Column[Any], ...]
    lines: tuple[tuple[Text, ...], ...]

    @property
    def titles(self) -> list[str]:
        """The titles of the columns."""
        return [column.heading for column in self.columns]


def make_frame(columns: Sequence[Column[Item]], items: Iterable[Item]) -> pd.DataFrame:
    """Compute a typed row for each item."""
    content = [
        [column.kind.missing if (value := column.value(item)) is None else value for column in columns]
        for item in items
    ]
    frame = pd.DataFrame(content, columns=[column.name for column in columns])
    return frame.astype({column.name: column.kind.dtype for column in columns if column.kind.dtype is not None})


def select_shown(columns: Iterable[Column[Any]], frame: pd.DataFrame, keys: Iterable[str]) -> tuple[Column[Any], ...]:
    """The columns of reports in order: those without a key, and those that `keys` select."""
    asked = {"", *keys}
    shown = [column for column in columns if column.title and column.key in asked and column.when(frame)]
    return tuple(sorted(shown, key=lambda column: column.place))


def make_lines(columns: Sequence[Column[Any]], rows: Iterable[Row]) -> tuple[tuple[Text, ...], ...]:
    """Format rows as texts."""
    return tuple(
        tuple(Text(column.show(row), Emphasis.PROVEN if column.is_proven(row) else Emphasis.NONE) for column in columns)
        for row in rows
    )


def to_rows(frame: pd.DataFrame) -> list[Row]:
    """The rows of a frame."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def write_cells(columns: Iterable[Column[Any]], frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its cells formatted for csv."""
    texts = {c.name: [c.write(value) for value in frame[c.name]] for c in columns if c.write is not None}
    return frame.assign(**{name: pd.Series(cells, index=frame.index, dtype=object) for name, cells in texts.items()})
