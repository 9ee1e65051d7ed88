"""The keys that the file of a search adds to an experiment: the space and the settings of the study."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, ValidationError, model_validator

from harness.document import describe_mistake
from harness.errors import SpecError
from harness.reading import load_kind
from harness.spec import ExperimentSpec, Name, Spec, Stages
from harness.spec.field import MAX_STAGES, Replicates
from paradigms.facts import unknown_name

WINNER = "Winner"
"""The name of the winner's row in the final comparison."""

Objective = Literal["val", "macs", "throughput"]

# Limits, like those of `harness.spec.field`, so that a study can be listed and stored.
Trials = Annotated[int, Field(gt=0, le=100_000)]
End = Annotated[float, Field(ge=-1e15, le=1e15)]
"""An end of a range."""

MAX_CHOICES = 1_000
"""Maximal number of values of one field (choices or points of a grid), and of first points."""

MAX_STEPS = 1_000_000
"""Maximal number of steps in a range."""

MAX_FIELDS = 100
"""Maximal number of searched fields, of fields of controls, and of controls."""

MAX_GRID = 10_000
"""Maximal number of combinations of a grid."""


def to_label(choice: Any) -> Any:
    """A choice as Optuna stores it: scalars unchanged, lists and null as JSON."""
    return choice if isinstance(choice, bool | int | float | str) else json.dumps(choice)


def is_same(one: Any, other: Any) -> bool:
    """Whether two choices are equal; `true` and 1 are not."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


class DimensionSpec(Spec):
    """The values of one field: a range, a list of choices, or one fixed value.

    Attributes:
        low: the lower end of a range; both ends belong to it.
        high: the upper end.
        log: whether the range is sampled on a logarithmic scale.
        step: distance between neighboring values; 1 by default for a field that takes only whole numbers.
        zero: adds the value 0 below a range of real numbers. It is sampled as the lowest tenth of the axis.
        points: number of values, including both ends, that a grid takes from a range without `step`.
        choices: the possible values of the field, without an order.
        value: the value of every trial; the field is not a parameter of the study.
        stages: the stages that a field of the operator is set for, as in a row. Each entry has its own value, which its
            stages share. Empty: the field is set in the row itself.
    """

    low: End | None = None
    high: End | None = None
    log: bool = False
    step: PositiveFloat | None = None
    zero: bool = False
    points: Annotated[int, Field(ge=2, le=MAX_CHOICES)] | None = None
    choices: Annotated[tuple[Any, ...], Field(min_length=2, max_length=MAX_CHOICES)] | None = None
    value: Any = None
    stages: Annotated[
        tuple[Stages, ...],
        BeforeValidator(lambda value: value if isinstance(value, tuple) else (value,)),
        Field(max_length=MAX_STAGES),
    ] = ()

    @property
    def is_fixed(self) -> bool:
        """Whether the field has a fixed value."""
        return self.low is None and self.choices is None

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of a range."""
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high

    @model_validator(mode="after")
    def _check_form(self) -> Self:
        stated = [name for name in ("low", "high", "choices", "value") if getattr(self, name) is not None]
        if stated not in (["low", "high"], ["choices"], ["value"]):
            raise ValueError(f"state low and high, or choices, or a value; got {' and '.join(stated) or 'none'}")
        if stated != ["low", "high"] and (self.log or self.step or self.zero or self.points):
            raise ValueError("log, step, zero and points need a range with low and high")
        if stated == ["low", "high"]:
            self._check_range()
        for one, other in combinations(map(to_label, self.choices or ()), 2):
            if one == other:  # Optuna would treat them as the same choice
                raise ValueError(f"choices must differ, got {one!r} and {other!r}")
        return self

    def _check_range(self) -> None:
        low, high = self.ends
        if low >= high:
            raise ValueError(f"low must be below high, got {low:g} and {high:g}")
        if self.log and low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, got {low:g}; zero: true adds the point 0")
        if self.log and self.step is not None:
            raise ValueError("a range has log or step, not both")
        if self.step is not None and (high - low) / self.step > MAX_STEPS:
            raise ValueError(f"a range has at most {MAX_STEPS:,} steps, got {(high - low) / self.step:.3g}")
        if self.step is not None:
            start, end, step = (Decimal(str(number)) for number in (low, high, self.step))
            rest = (end - start) % step
            if rest:  # Optuna would change the upper end
                raise ValueError(
                    f"step must divide high - low: steps of {self.step:g} from {low:g} reach {end - rest:f}"
                )
        if self.step is not None and self.points is not None:
            raise ValueError("a range has step or points, not both")
        if self.zero and low < 0:
            raise ValueError(f"0 lies within the range, got low {low:g}")


def _to_dimension(value: object) -> object:
    """Read a dimension; anything but a mapping is a fixed value."""
    return value if isinstance(value, Mapping) else {"value": value}


class StudySpec(Spec):
    """The settings of a study.

    Attributes:
        row: the row whose fields the space replaces; None: the baseline.
        trials: number of trials of the study.
        sampler: chooses the next point; `grid` takes every combination once.
        pruner: ends trials early by their validation score after each epoch.
        startup_trials: number of random trials before the sampler fits a model, and of ended trials before the pruner
            may end one.
        objectives: `val` (the deciding measure, validated after the last epoch) and at most one more: `macs`
            (multiply-adds per image) or `throughput` (training images per second, which depends on the machine's load).
        seed: the replicate of every trial. Tables use replicates from 0, so the final comparison uses other seeds than
            the search.
        first: points that are tried before the sampler chooses any.
    """

    row: str | None = None
    trials: Trials = 40
    sampler: Literal["tpe", "gp", "random", "grid"] = "tpe"
    pruner: Literal["none", "median", "hyperband"] = "none"
    startup_trials: Trials = 10
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1, max_length=2)] = ("val",)
    seed: Annotated[int, Field(ge=0, le=1_000_000_000)] = 1000
    first: Annotated[tuple[dict[str, Any], ...], Field(max_length=MAX_CHOICES)] = ()

    @model_validator(mode="after")
    def _check_objectives(self) -> Self:
        if self.objectives[0] != "val" or len(set(self.objectives)) != len(self.objectives):
            raise ValueError(f"objectives are val, and at most one of macs and throughput, got {list(self.objectives)}")
        if len(self.objectives) > 1 and self.pruner != "none":
            raise ValueError(f"two objectives cannot be pruned, got pruner {self.pruner!r}")
        return self


class SearchSpec(ExperimentSpec):
    """One YAML file with a key `search`: a space around a row, and the rows that its winner is compared with.

    A key of `search` is a field of the operator (`ghost_lambda`), or a recipe's value as `--set` names it
    (`training.lr`). Each of `controls` is the winner with other values of some fields of the operator, wherever the
    search states such fields; the name of a parameter stands for the winner's value of it.
    """

    search: Annotated[
        dict[str, Annotated[DimensionSpec, BeforeValidator(_to_dimension)]],
        Field(min_length=1, max_length=MAX_FIELDS),
    ]
    study: StudySpec = StudySpec()
    controls: Annotated[dict[Name, dict[str, Any]], Field(max_length=MAX_FIELDS)] = Field(default_factory=dict)
    seeds: Replicates = 5

    @property
    def row(self) -> str:
        """The name of the row whose fields are searched."""
        return self.study.row or self.baseline

    def with_trials(self, trials: int) -> "SearchSpec":
        """The same search with another number of trials.

        Raises:
            SpecError: they are too many.
        """
        try:
            study = StudySpec.model_validate({**self.study.model_dump(), "trials": trials})
        except ValidationError as error:
            raise SpecError(describe_mistake(error.errors()[0]), key="--trials") from None
        return self.model_copy(update={"study": study})

    def to_experiment(self) -> ExperimentSpec:
        """The experiment without the search; its errors report no line, since trials change its rows."""
        return ExperimentSpec.model_construct(**{name: getattr(self, name) for name in ExperimentSpec.model_fields})


def load_search(
    path: Path, *, recipe: str | None = None, seeds: int | None = None, overrides: Sequence[str] = ()
) -> SearchSpec:
    """Read a search with its recipe and check its space; the arguments are those of `harness.reading.load_spec`.

    Raises:
        SpecError: a mistake in a file or an option, with its place.
    """
    from harness.search.space import make_space

    spec = load_kind(SearchSpec, path, recipe=recipe, seeds=seeds, overrides=overrides)
    if spec.row not in spec.rows:
        raise spec.error(unknown_name("row", spec.row, tuple(spec.rows)), "study", "row")
    for key, names in ("rows", spec.rows), ("controls", spec.controls):
        if WINNER in names:
            raise spec.error("this is the name of the row that the search finds; choose another", key, WINNER)
    make_space(spec)
    return spec
