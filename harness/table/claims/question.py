"""The questions of claims about two rows: which one is better by some quantity, or whether they are equal."""

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from harness.record import Record
from harness.statistics import Contrast, Rule
from harness.table.selection import Replicates


class Quantity(Hashable, Protocol):
    """A number of a run with a measurement; equal values are the same quantity."""

    def read(self, record: Record) -> float | None:
        """The number; None if the run lacks it."""
        ...


@dataclass(frozen=True)
class FinalValue:
    """A metric at the end of a run."""

    metric: str

    def read(self, record: Record) -> float | None:
        """The value of the metric."""
        return record.metrics.get(self.metric)


@dataclass(frozen=True)
class FinalLogarithm:
    """The logarithm of a metric: its differences are ratios."""

    metric: str

    def read(self, record: Record) -> float | None:
        """The natural logarithm; None if the metric is not positive."""
        value = record.metrics.get(self.metric, 0.0)
        return math.log(value) if value > 0 else None


@dataclass(frozen=True)
class EarlyValue:
    """A metric of the curve at an epoch, or after a share of the epochs (at least one epoch)."""

    metric: str
    at: int | float

    def read(self, record: Record) -> float | None:
        """The value of the metric at that epoch."""
        epoch = self.at if isinstance(self.at, int) else max(1, round(self.at * len(record.curve)))
        return next((each.metrics.get(self.metric) for each in record.curve if each.epoch == epoch), None)


@dataclass(frozen=True)
class Question:
    """A comparison of two rows.

    Attributes:
        rule: the rule that judges the comparison.
        text: the question in words.
    """

    first: str
    second: str
    quantity: Quantity
    rule: Rule
    text: str = field(compare=False)

    @property
    def rows(self) -> tuple[str, str]:
        """Both rows."""
        return self.first, self.second

    @property
    def contrast(self) -> Contrast:
        """The first row minus the second."""
        return {self.first: 1.0, self.second: -1.0}


Group = tuple[Quantity, Rule]
"""Questions about one quantity under one rule are tested at once."""


def group_questions(questions: Iterable[Question]) -> dict[Group, list[Question]]:
    """The questions by group."""
    groups: dict[Group, list[Question]] = {}
    for question in questions:
        groups.setdefault((question.quantity, question.rule), []).append(question)
    return groups


def read_scores(rows: Mapping[str, Replicates], quantity: Quantity) -> dict[str, dict[Hashable, float]]:
    """The quantity by row and block."""
    return {name: row.read_blocks(quantity.read) for name, row in rows.items()}
