"""Claims of the paper in checkable form, one model per kind; a new kind is one more model in `Claim`."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias, get_args

from pydantic import Field, PlainValidator, PositiveFloat, PositiveInt, model_validator

from harness.spec.field import Line, OneOrMore, Spec
from paradigms.facts import shorten, unknown_name

Expectation = Literal["diverged", "out_of_memory", "timed_out"]


class ClaimSpec(Spec):
    """The common fields of all kinds of claims.

    Attributes:
        kind: the key that names the kind; its value are the rows that the claim is about.
        source: the place in the paper.
        matched: controls: for some of these rows, a row of the same operator with the size of the other rows.
    """

    kind: ClassVar[str]

    source: Line | None = None
    matched: dict[str, str] = {}

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows that the claim is about."""
        rows: tuple[str, ...] = getattr(self, self.kind)
        return rows

    @property
    def row_keys(self) -> dict[tuple[str | int, ...], str]:
        """Every row that the claim names, including controls, by its key in the claim."""
        named: dict[tuple[str | int, ...], str] = {(self.kind, i): row for i, row in enumerate(self.rows)}
        return named | {("matched", row): control for row, control in self.matched.items()}

    @property
    def text(self) -> str:
        """The claim in words: `Net7 better than Swin-T`."""
        return self.describe(*self.rows)

    @property
    def control(self) -> Self | None:
        """The same claim about the controls; None if it names none."""
        if not self.matched:
            return None
        replaced = tuple(self.matched.get(row, row) for row in self.rows)
        return self.model_copy(update={self.kind: replaced, "matched": {}})

    def describe(self, *rows: str) -> str:
        """The claim about some of its rows, in words."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _check_rows(self) -> Self:
        for claim in (self, self.control):
            rows = () if claim is None else claim.rows
            twice = [row for row in rows if rows.count(row) > 1]
            if twice:
                raise ValueError(f"{twice[0]} would be compared with itself")
        unknown = [row for row in self.matched if row not in self.rows]
        if unknown:
            raise ValueError(f"matched: {unknown_name('row of this claim', unknown[0], self.rows)}")
        return self


class BetterSpec(ClaimSpec):
    """The first row has a better score than the second."""

    kind = "better"

    better: tuple[str, str]

    def describe(self, *rows: str) -> str:
        """`Net7 better than Swin-T`."""
        return " better than ".join(rows)


class OrderSpec(ClaimSpec):
    """Each row has a better score than the next one."""

    kind = "order"

    order: Annotated[tuple[str, ...], Field(min_length=2)]

    def describe(self, *rows: str) -> str:
        """`Net7 better than Net6 better than Net5`."""
        return " better than ".join(rows)


class EqualSpec(ClaimSpec):
    """The scores of two rows differ by less than `within`, in the measure's unit; None: the experiment's margin."""

    kind = "equal"

    equal: tuple[str, str]
    within: PositiveFloat | None = None

    def describe(self, *rows: str) -> str:
        """`Net6 equal to Swin-T within 0.2`."""
        return " equal to ".join(rows) + ("" if self.within is None else f" within {self.within:g}")


class OutcomeSpec(ClaimSpec):
    """Every run of these rows ends with this status. The notes of the rows show it, too."""

    kind = "outcome"

    outcome: Annotated[tuple[str, ...], Field(min_length=1), OneOrMore]
    status: Expectation

    def describe(self, *rows: str) -> str:
        """`identity: diverged`."""
        return f"{', '.join(rows)}: {self.status.replace('_', ' ')}"


class FasterSpec(ClaimSpec):
    """The first row is faster than the second, by images/s of training or by multiply-adds of an image."""

    kind = "faster"

    faster: tuple[str, str]
    by: Literal["throughput", "macs"]

    def describe(self, *rows: str) -> str:
        """`DwConv faster than LSA by throughput`."""
        return f"{' faster than '.join(rows)} by {'multiply-adds' if self.by == 'macs' else self.by}"


class EarlierSpec(ClaimSpec):
    """The first row has the better validation score at an early epoch, stated as a number or as a share of all."""

    kind = "earlier"

    earlier: tuple[str, str]
    epoch: PositiveInt | None = None
    share: Annotated[float, Field(gt=0, lt=1)] | None = None

    def describe(self, *rows: str) -> str:
        """`filter_norm ahead of softmax at epoch 50`."""
        when = f"at epoch {self.epoch}" if self.share is None else f"after {100 * self.share:g} % of the epochs"
        return f"{' ahead of '.join(rows)} {when}"

    @model_validator(mode="after")
    def _check_time(self) -> Self:
        if (self.epoch is None) == (self.share is None):
            raise ValueError("must state either epoch or share")
        return self


def _read_claim(value: Any) -> ClaimSpec:
    """Read a claim by the model of its kind, so that errors concern this kind only."""
    if isinstance(value, ClaimSpec):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a mapping, got {shorten(repr(value))}")
    named = [kind for kind in CLAIMS if kind in value]
    unknown = [key for key in value if key not in ClaimSpec.model_fields]
    if len(named) > 1:
        raise ValueError(f"must be of one kind, got {' and '.join(named)}")
    if not named and unknown:
        raise ValueError(unknown_name("claim", unknown[0], tuple(CLAIMS)))
    if not named:
        raise ValueError(f"must name its kind: {', '.join(CLAIMS)}")
    return CLAIMS[named[0]].model_validate(value)


Claim: TypeAlias = Annotated[
    BetterSpec | OrderSpec | EqualSpec | OutcomeSpec | FasterSpec | EarlierSpec, PlainValidator(_read_claim)
]

CLAIMS: dict[str, type[ClaimSpec]] = {model.kind: model for model in get_args(get_args(Claim)[0])}
"""The kinds of claims by the key that names them."""
