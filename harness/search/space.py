"""The search space: converts a trial's values to a row, a recipe and a cell."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from harness.errors import SpecError
from harness.plan import PlannedRow, make_plan
from harness.search.spec import MAX_GRID, DimensionSpec, SearchSpec, is_same, to_label
from harness.spec import OperatorSpec, RecipeSpec, RowSpec, Stages
from paradigms.facts import unknown_name

if TYPE_CHECKING:
    from optuna import Trial

RECIPE_PARTS = ("training", "backbones", "frameworks")
"""The parts of a recipe that may be searched; data may not, since the objective is measured on them."""

ZERO_SHARE = 0.1
"""The share of an axis that represents the point 0."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a study: one field, in the row or in some stages.

    `name` is the name of the field unless it has several parameters. If a range includes the point 0, samples below
    `low` mean 0, so that the space is ordered and static for every sampler.
    """

    name: str
    field: str
    stages: Stages | None
    dimension: DimensionSpec
    is_whole: bool

    @property
    def is_operator(self) -> bool:
        """Whether the field belongs to the operator, not to the recipe."""
        return self.field in OperatorSpec.model_fields

    @property
    def floor(self) -> float:
        """The start of the axis of a range; below `low` if the range includes the point 0."""
        low, high = self.dimension.ends
        if not self.dimension.zero:
            return low
        if self.dimension.step is not None:
            return float(Decimal(str(low)) - Decimal(str(self.dimension.step)))
        share = ZERO_SHARE / (1 - ZERO_SHARE)
        return float(low * (low / high) ** share) if self.dimension.log else low - share * (high - low)

    @property
    def labels(self) -> dict[str, Any]:
        """Choices by their labels in the study: scalars unchanged, lists and null as JSON."""
        return {to_label(choice): choice for choice in self.dimension.choices or ()}

    def suggest(self, trial: "Trial") -> Any:
        """Sample the value of the field in a trial; an existing value of the trial is returned again."""
        dimension = self.dimension
        if dimension.choices is not None:
            return self.to_value(trial.suggest_categorical(self.name, list(self.labels)))
        high = dimension.ends[1]
        if self.is_whole:
            step = int(dimension.step or 1)
            return trial.suggest_int(self.name, int(self.floor), int(high), step=step, log=dimension.log)
        return self.to_value(trial.suggest_float(self.name, self.floor, high, step=dimension.step, log=dimension.log))

    def to_value(self, sampled: Any) -> Any:
        """The value of the field at a point of the axis."""
        if self.dimension.choices is not None:
            return self.labels[sampled]
        return 0.0 if self.dimension.zero and sampled < self.dimension.ends[0] else sampled

    def to_sampled(self, value: Any) -> Any:
        """A point of the axis that means `value`.

        Raises:
            ValueError: `value` is not in the space.
        """
        if self.dimension.choices is not None:
            if not any(is_same(value, choice) for choice in self.dimension.choices):
                raise ValueError(f"must be one of the choices {list(self.dimension.choices)}, got {value!r}")
            return to_label(value)
        low, high = self.dimension.ends
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"must be a number, got {value!r}")
        if value == 0 and self.dimension.zero:
            return self.zero_at
        if not low <= value <= high:
            raise ValueError(f"must be in [{low:g}, {high:g}]{' or 0' if self.dimension.zero else ''}, got {value}")
        return int(value) if self.is_whole else float(value)

    @property
    def zero_at(self) -> float:
        """The point of the axis that represents 0 in figures."""
        low = self.dimension.ends[0]
        if self.dimension.step is not None:
            return self.floor
        return float(np.sqrt(self.floor * low)) if self.dimension.log else (self.floor + low) / 2

    def grid(self) -> list[Any]:
        """The values of the field on a grid, in order."""
        dimension = self.dimension
        if dimension.choices is not None:
            return list(dimension.choices)
        low, high = dimension.ends
        if dimension.points is not None:
            spaced = np.geomspace if dimension.log else np.linspace
            values = list(dict.fromkeys(self._round(x) for x in spaced(low, high, dimension.points)))
        else:
            step = dimension.step or 1
            values = [self._round(low + step * k) for k in range(self.grid_size)]
        return [0.0, *values] if dimension.zero and 0 not in values else values

    @property
    def grid_size(self) -> int:
        """The number of values of the field on a grid, without the point 0."""
        dimension = self.dimension
        if dimension.choices is not None:
            return len(dimension.choices)
        low, high = dimension.ends
        return dimension.points or int((high - low) / (dimension.step or 1) + 1e-9) + 1

    def _round(self, value: float) -> float | int:
        return round(value) if self.is_whole else float(f"{value:.12g}")

    def probes(self) -> list[Any]:
        """Values that reveal mistakes in the file."""
        if self.dimension.choices is not None:
            return list(self.dimension.choices)
        low, high = (self._round(end) for end in self.dimension.ends)
        return [low, high, *([0.0] if self.dimension.zero else [])]


@dataclass(frozen=True)
class Space:
    """All parameters of a search and its fixed values, around one row."""

    spec: SearchSpec
    parameters: tuple[Parameter, ...]
    fixed: tuple[tuple[Parameter, Any], ...]

    def find_cell(self, name: str, values: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> PlannedRow:
        """The cell of the row `name` with the values of all parameters; `changes` are those of a control.

        Raises:
            SpecError: there is no such operator.
        """
        row, recipe = self.apply(values, changes)
        experiment = self.spec.to_experiment()
        recipe = recipe.model_copy(update={"floor_width": None})
        alone = experiment.model_copy(update={"rows": {name: row}, "baseline": name, "recipe": recipe, "factors": None})
        return make_plan(alone, is_derived=True).rows[0]

    def apply(self, values: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> tuple[RowSpec, RecipeSpec]:
        """The row and the recipe with these values.

        Raises:
            SpecError: a field cannot have its value.
        """
        row = self.spec.rows[self.spec.row].model_dump(exclude_unset=True)
        recipe = self.spec.recipe.model_dump()
        for parameter, value in (*self.fixed, *((known, values[known.name]) for known in self.parameters)):
            if parameter.is_operator:
                _find_place(row, parameter.stages)[parameter.field] = value
            else:
                _put(recipe, parameter.field, value)
        for stages in self.places:
            _find_place(row, stages).update(changes or {})
        try:
            return RowSpec.model_validate(row), RecipeSpec.model_validate(recipe)
        except ValidationError as error:
            detail = error.errors()[0]
        message = detail.get("ctx", {}).get("error", detail["msg"].replace("Input should be", "must be"))
        shown = "" if isinstance(detail["input"], Mapping) else f", got {detail['input']!r}"
        raise SpecError(f"{message}{shown}", key=".".join(str(part) for part in detail["loc"]))

    @property
    def places(self) -> tuple[Stages | None, ...]:
        """The places (row or stages) at which the search states fields of the operator."""
        return tuple(dict.fromkeys(parameter.stages for parameter in self.parameters if parameter.is_operator))

    @cached_property
    def first(self) -> tuple[dict[str, Any], ...]:
        """The points of trials before the sampler chooses: stated points, then those of a grid."""
        known = {parameter.name: parameter for parameter in self.parameters}
        points = [
            {name: known[name].to_sampled(value) for name, value in point.items()} for point in self.spec.study.first
        ]
        if self.spec.study.sampler == "grid":
            axes = [[parameter.to_sampled(value) for value in parameter.grid()] for parameter in self.parameters]
            grid = (dict(zip(known, values, strict=True)) for values in product(*axes))
            points = [*points, *(point for point in grid if point not in points)]
        return tuple(points)


def make_space(spec: SearchSpec) -> Space:
    """Make the space of a search and check it against the fields that it names.

    Raises:
        SpecError: a name is unknown, a field cannot have an end or a choice, or none of its values changes the row;
            with its position.
    """
    parameters, fixed = [], []
    for field, dimension in spec.search.items():
        _check_field(spec, field, dimension)
        for stages in dimension.stages or (None,):
            name = field if len(dimension.stages) < 2 else f"{field}.{stages}"
            found = Parameter(name, field, stages, dimension, _is_whole(spec, field, dimension))
            if dimension.is_fixed:
                fixed.append((found, dimension.value))
            else:
                parameters.append(found)
    if not parameters:
        raise spec.error("nothing varies: a search needs a range or choices", "search")
    space = Space(spec, tuple(parameters), tuple(fixed))
    _check_probes(space)
    _check_points(space)
    _check_controls(space)
    return space


def _check_field(spec: SearchSpec, field: str, dimension: DimensionSpec) -> None:
    if field in OperatorSpec.model_fields:
        return
    if "." not in field:
        known = (*OperatorSpec.model_fields, *(f"training.{name}" for name in type(spec.recipe.training).model_fields))
        raise spec.error(unknown_name("field", field, known), "search", field)
    if dimension.stages:
        raise spec.error("a value of the recipe applies to all stages", "search", field, "stages")
    first, *_ = parts = field.split(".")
    if first not in RECIPE_PARTS:
        raise spec.error(unknown_name("part of a recipe", first, RECIPE_PARTS), "search", field)
    node: Any = spec.recipe
    for part in parts:
        known = tuple(getattr(type(node), "model_fields", ()))
        if part not in known:
            raise spec.error(unknown_name("value of the recipe", part, known), "search", field)
        node = getattr(node, part)


def _is_whole(spec: SearchSpec, field: str, dimension: DimensionSpec) -> bool:
    """Whether a field with a range is an integer; ends and step must be integers then."""
    if dimension.is_fixed or dimension.choices is not None:
        return False
    low, high = dimension.ends
    between = low + (high - low) / 3 + 1e-7
    if _takes(spec, field, between):
        return False
    numbers = (*dimension.ends, dimension.step or 1)
    if any(number != int(number) for number in numbers):
        raise spec.error(f"this field takes whole numbers, got {low:g} to {high:g}", "search", field)
    if dimension.zero:
        raise spec.error(
            "zero: true needs a range of real numbers; list whole numbers as choices", "search", field, "zero"
        )
    return True


def _takes(spec: SearchSpec, field: str, value: Any) -> bool:
    """Whether the field can have a value, regardless of other fields."""
    try:
        if field in OperatorSpec.model_fields:
            OperatorSpec.model_validate({field: value})
        else:
            recipe = spec.recipe.model_dump()
            _put(recipe, field, value)
            RecipeSpec.model_validate(recipe)
    except ValidationError:
        return False
    return True


def _check_probes(space: Space) -> None:
    """Check the ends or choices of each parameter: every value must be possible, and some must have an effect."""
    start = {parameter.name: parameter.probes()[0] for parameter in space.parameters}
    for parameter in space.parameters:
        found = set()
        for value in parameter.probes():
            try:
                found.add(space.find_cell("trial", {**start, parameter.name: value}).cell.id)
            except SpecError as error:
                message = f"{value!r} is not possible: {error}"
                raise space.spec.error(message, "search", parameter.field) from None
        if len(found) == 1:
            message = f"has no effect on row {space.spec.row!r}; stages says where it holds, fixed values what reads it"
            raise space.spec.error(message, "search", parameter.field)


def _check_points(space: Space) -> None:
    """Check that the first points are in the space, and that a grid is finite."""
    known = {parameter.name: parameter for parameter in space.parameters}
    for number, point in enumerate(space.spec.study.first):
        for name, value in point.items():
            if name not in known:
                message = unknown_name("parameter", name, tuple(known))
                raise space.spec.error(message, "study", "first", number, name)
            try:
                known[name].to_sampled(value)
            except ValueError as error:
                raise space.spec.error(str(error), "study", "first", number, name) from None
    if space.spec.study.sampler == "grid":
        for parameter in space.parameters:
            dimension = parameter.dimension
            if dimension.choices is None and not (parameter.is_whole or dimension.step or dimension.points):
                raise space.spec.error("a grid needs step or points", "search", parameter.field)
        size = math.prod(parameter.grid_size for parameter in space.parameters)
        if size > MAX_GRID:
            message = f"a grid has at most {MAX_GRID:,} combinations, got {size:,}"
            raise space.spec.error(message, "study", "sampler")


def _check_controls(space: Space) -> None:
    """Check that controls have unique names and state fields of the operator."""
    for name, changes in space.spec.controls.items():
        if name in space.spec.rows:
            raise space.spec.error("a row has this name already; choose another one", "controls", name)
        for field in changes:
            if field not in OperatorSpec.model_fields:
                message = unknown_name("field of the operator", field, tuple(OperatorSpec.model_fields))
                raise space.spec.error(message, "controls", name, field)


def _find_place(row: dict[str, Any], stages: Stages | None) -> dict[str, Any]:
    """The mapping of a row that contains the fields of the operator."""
    found: dict[str, Any] = row if stages is None else row.setdefault("stages", {}).setdefault(stages, {})
    return found


def _put(recipe: dict[str, Any], field: str, value: Any) -> None:
    *path, last = field.split(".")
    node = recipe
    for part in path:
        node = node[part]
    node[last] = value
