"""The differences between two tables: values, and their text for a terminal."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.text import NOTHING, count_noun

EXPECTATION = "unexplained: runs of the same configuration, code, data and environment should have the same numbers"


class Reason(StrEnum):
    """Why a number differs."""

    SEEDS = "seeds"
    STATUS = "status"
    CONFIGURATION = "configuration"
    CODE = "code"
    DATA = "data"
    ENVIRONMENT = "environment"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True)
class Cause:
    """A difference between two runs of a seed.

    Attributes:
        name: name of the field, the library, ...
        before: its old value.
        after: its new value.
        note: further explanation.
        is_effective: whether it can change a number; code with the same rehearsal, bit for bit, cannot.
    """

    reason: Reason
    name: str
    before: Any = None
    after: Any = None
    note: str = ""
    is_effective: bool = True

    def describe(self) -> str:
        """`training.lr 0.03 → 0.01`."""
        if self.reason in (Reason.SEEDS, Reason.UNEXPLAINED):
            return self.note
        values = f"{self.name} {_show(self.before)} → {_show(self.after)}"
        return f"{values} ({self.note})" if self.note else values


@dataclass(frozen=True)
class Number:
    """A number of a row: the mean over the measured seeds; None if there are none."""

    name: str
    before: float | None
    after: float | None
    form: str

    def describe(self) -> str:
        """`top-1 84.87 → 85.10`, with more digits where these are equal."""
        if self.before is None or self.after is None:
            texts = [NOTHING if value is None else f"{value:{self.form}}" for value in (self.before, self.after)]
            return f"{self.name} {' → '.join(texts)}"
        if self.before == self.after:
            return f"{self.name} {self.after:{self.form}} (same mean, other values)"
        shown = ((f"{self.before:{form}}", f"{self.after:{form}}") for form in (self.form, ".4f", ".8f", ""))
        before, after = next(texts for texts in shown if texts[0] != texts[1])
        return f"{self.name} {before} → {after}"


@dataclass(frozen=True)
class RowChange:
    """A row whose numbers differ.

    Attributes:
        numbers: the numbers that differ.
        causes: the causes by seed.
    """

    row: str
    numbers: tuple[Number, ...]
    causes: Mapping[int, tuple[Cause, ...]]

    def describe(self) -> str:
        """The numbers on one line, and one line for all seeds with the same causes."""
        seeds = defaultdict[str, list[int]](list)
        for seed, causes in self.causes.items():
            seeds["; ".join(cause.describe() for cause in causes)].append(seed)
        lines = [
            f"  {'seed' if len(same) == 1 else 'seeds'} {', '.join(map(str, same))}: {causes}"
            for causes, same in seeds.items()
        ]
        numbers = ", ".join(number.describe() for number in self.numbers) or "other outcomes"
        return "\n".join([f"{self.row}: {numbers}", *lines])


@dataclass(frozen=True)
class TableChange:
    """Two versions of a table.

    Attributes:
        runs: number of runs before and after.
        num_rows: number of rows that both versions have.
        rows: the rows of these that differ.
        removed: rows that only the old version has.
        added: rows that only the new version has.
    """

    name: str
    runs: tuple[int, int]
    num_rows: int
    rows: tuple[RowChange, ...]
    removed: tuple[str, ...]
    added: tuple[str, ...]

    def describe(self) -> str:
        """The changes as text; one line if both versions are equal."""
        lines = [row.describe() for row in self.rows]
        lines += [f"{row}: only in the old table" for row in self.removed]
        lines += [f"{row}: only in the new table" for row in self.added]
        if not lines:
            return f"{self.name}: equal: {count_noun(self.num_rows, 'row')}, {count_noun(self.runs[1], 'run')}"
        differ = f"{len(self.rows)} of {count_noun(self.num_rows, 'common row')} differ"
        return "\n".join([f"{self.name}: {differ}; {self.runs[0]} runs before, {self.runs[1]} after", *lines])


@dataclass(frozen=True)
class Difference:
    """Two sets of tables.

    Attributes:
        tables: the tables that both sets have.
        removed: names of tables that only the old set has.
        added: names of tables that only the new set has.
    """

    tables: tuple[TableChange, ...]
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    @property
    def has_unexplained(self) -> bool:
        """Whether some number differs without an explanation."""
        causes = (cause for table in self.tables for row in table.rows for own in row.causes.values() for cause in own)
        return any(cause.reason == Reason.UNEXPLAINED for cause in causes)

    def describe(self) -> str:
        """The differences as text for a terminal."""
        lines = [table.describe() for table in self.tables]
        lines += [f"{name}: only in the old folder" for name in self.removed]
        lines += [f"{name}: only in the new folder" for name in self.added]
        return "\n".join([*lines, *([EXPECTATION] if self.has_unexplained else [])])

    def to_plain(self) -> dict[str, Any]:
        """The same as plain values, for `--json`."""
        return {"unexplained": self.has_unexplained, **vars(self)}


def _show(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return f"[{', '.join(map(_show, value))}]"
    return str(value)
