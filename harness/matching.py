"""Solves a size of a backbone, so that a row costs as much as another one. Imports torch only to solve."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.cell import Cell
from harness.document import join_errors
from harness.errors import SpecError
from harness.files import locate_cached, write_cached
from harness.provenance import code_digest
from harness.resolve import error_in_row, resolve_row
from harness.rows import list_ablations
from harness.spec import BackboneSpec, ExperimentSpec, MatchSpec, RowSpec
from paradigms.facts import unknown_name

MAX_DIFFERENCE = 0.005
"""How far the cost of a row may be from that of the row that it is matched with, relative to the latter."""

STEP = 0.01
"""A size that is no whole number is a multiple of this."""

MAX_GAP = 256
"""So many successive values may be impossible, such as widths that the heads do not divide."""

NOUNS = {"params": "parameters", "macs": "multiply-adds"}
"""What is matched, in words."""

Count = Callable[[int], int | None]
"""The cost by the number of steps; None: such a size is impossible."""

_Point = tuple[int, int]
"""A number of steps, and its cost."""


@dataclass(frozen=True)
class Solution:
    """A size that was solved.

    Attributes:
        by: the size.
        value: its value; a cell that states it is the same cell.
        measure: `params` or `macs`.
        row: that the row is matched with.
        cost: of the row with this value.
        target: of the row that it is matched with.
    """

    by: str
    value: float
    measure: str
    row: str
    cost: int
    target: int

    @property
    def difference(self) -> float:
        """Relative to the target: 0.001 is a tenth of a percent more."""
        return self.cost / self.target - 1

    def describe(self) -> str:
        """`mlp_ratio 4.33, for as many parameters as Swin-T: 28,290,154, +0.01 %`."""
        wanted = f"{self.by} {self.value:g}, for as many {NOUNS[self.measure]} as {self.row}"
        return f"{wanted}: {self.cost:,}, {100 * self.difference:+.2f} %"


def solve_matches(
    spec: ExperimentSpec, rows: Mapping[str, RowSpec], *, floors: tuple[str, ...]
) -> tuple[dict[str, RowSpec], dict[str, Solution]]:
    """State the solved size in every row that asks for one.

    Sizes are solved under the recipe that trains from scratch. A size is a whole number, or a multiple of `STEP`. Of
    the last value that costs less than the named row, and the first one that does not, the nearer is taken. It is kept
    in a cache, by the code and by both models.

    Args:
        spec: the experiment.
        rows: all of its rows, as they are stated.
        floors: names that are no row.

    Returns:
        The rows, and the solution of each that was solved. A row is left as it is if the recipe has no sizes for its
        backbone, or for that of the row that it is matched with, or if `ablate` has generated an impossible row.

    Raises:
        SpecError: all rows that ask for the impossible: an unknown row, a circle, a size that is no number; or no value
            of the size comes near enough.
    """
    asked = {name: row.match for name, row in rows.items() if row.match is not None}
    if not asked:
        return dict(rows), {}
    scratch = spec if spec.recipe.init_recipe is None else spec.model_copy(update={"recipe": spec.recipe.init_recipe})
    placebos = {name for name, row in rows.items() if row.placebo}
    targets = {name: spec.baseline if match.row in placebos else match.row for name, match in asked.items()}
    _raise_all(_find_mistakes(scratch, rows, targets, floors))
    solved, solutions, errors = dict(rows), dict[str, Solution](), list[SpecError]()
    for name in sorted(targets, key=lambda name: len(_follow(name, targets))):  # the named row is solved before
        target = targets[name]
        is_solved = target not in targets or target in solutions
        if not (is_solved and all(_find_sizes(scratch, rows[each]) for each in (name, target))):
            continue
        try:
            solutions[name] = _solve(scratch, name, solved, resolve_row(scratch, target, solved))
        except ValueError as error:
            errors.append(error_in_row(spec, name, str(error), "match"))
        except SpecError:
            if name not in list_ablations(spec):  # these are skipped where they are impossible
                raise
        else:
            solved[name] = _state(rows[name], scratch.recipe.name, asked[name].by, solutions[name].value)
    _raise_all(errors)
    return solved, solutions


def explain_unsolved(row: RowSpec, solution: Solution | None, recipe: str) -> str | None:
    """Why a row is skipped whose size could not be solved; None where nothing was asked, or it was."""
    if row.match is None or solution is not None or row.init_from is not None:
        return None
    return f"cannot be matched with {row.match.row!r} under recipe {recipe!r}"


def _raise_all(errors: Iterable[SpecError]) -> None:
    listed = list(errors)
    if listed:
        raise join_errors(listed)


def _find_mistakes(
    spec: ExperimentSpec, rows: Mapping[str, RowSpec], targets: Mapping[str, str], floors: tuple[str, ...]
) -> Iterator[SpecError]:
    for name in targets:
        row, chain = rows[name], _follow(name, targets)
        match = row.match
        assert match is not None
        if match.row in floors and match.row not in rows:
            message = f"{match.row!r} is a floor, a model without attention; name a row"
            yield error_in_row(spec, name, message, "match", match.measure)
        elif match.row not in rows:
            yield error_in_row(spec, name, unknown_name("row", match.row, tuple(rows)), "match", match.measure)
        elif chain[-1] == name:
            message = f"rows are matched in a circle: {' with '.join(map(repr, chain))}"
            yield error_in_row(spec, name, message, "match", match.measure)
        elif rows[match.row].init_from is not None:
            message = f"{match.row!r} starts from weights; name a row that is trained from scratch"
            yield error_in_row(spec, name, message, "match", match.measure)
        if row.init_from is not None:
            yield error_in_row(spec, name, "a row that starts from weights has their sizes", "match")
        if match.by in row.sizes.get(spec.recipe.name, {}):
            message = "is solved by match; state one of the two"
            yield error_in_row(spec, name, message, "sizes", spec.recipe.name, match.by)
        sizes = _find_sizes(spec, row)
        numbers = [] if sizes is None else [key for key, value in sizes if type(value) in (int, float)]
        if sizes is not None and match.by not in numbers:
            message = unknown_name(f"numeric size of a {sizes.label}", match.by, tuple(numbers))
            yield error_in_row(spec, name, message, "match", "by")


def _follow(name: str, targets: Mapping[str, str]) -> list[str]:
    """The row, the one that it is matched with, and so on, until one is not matched or comes a second time."""
    chain = [name]
    while chain[-1] in targets and chain[-1] not in chain[:-1]:
        chain.append(targets[chain[-1]])
    return chain


def _find_sizes(spec: ExperimentSpec, row: RowSpec) -> BackboneSpec | None:
    sizes: BackboneSpec | None = getattr(spec.recipe.backbones, row.backbone or spec.cell.backbone)
    return sizes


def _state(row: RowSpec, recipe: str, by: str, value: float) -> RowSpec:
    """The row with a size under a recipe."""
    return row.model_copy(update={"sizes": {**row.sizes, recipe: {**row.sizes.get(recipe, {}), by: value}}})


def _solve(spec: ExperimentSpec, name: str, rows: Mapping[str, RowSpec], target: Cell) -> Solution:
    """The value of a row's size whose cost is nearest to that of another cell.

    Raises:
        ValueError: none is near enough, or the size does not change the cost.
    """
    row, cell = rows[name], resolve_row(spec, name, rows)
    match = row.match
    assert match is not None
    start = getattr(cell.sizes, match.by)
    step = 1 if isinstance(start, int) else STEP
    path = _find_cache(cell, target, match)
    try:
        value, cost, wanted = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        from harness.costs import count_cost

        def count(steps: int) -> int | None:
            changed = _state(row, spec.recipe.name, match.by, _to_value(steps, step))
            try:
                return count_cost(resolve_row(spec, name, {**rows, name: changed}), match.measure)
            except SpecError:
                return None

        wanted = count_cost(target, match.measure)
        try:
            steps, cost = find_nearest(count, round(start / step), wanted)
        except ValueError as error:
            raise ValueError(f"the {NOUNS[match.measure]} do not grow with {match.by}: {error}") from None
        value = _to_value(steps, step)
        write_cached(path, json.dumps([value, cost, wanted]))
    solution = Solution(match.by, value, match.measure, match.row, cost, wanted)
    if abs(solution.difference) > MAX_DIFFERENCE:
        nearest = f"the nearest is {value:g} with {cost:,}, {100 * solution.difference:+.2f} %"
        wants = f"{wanted:,} {NOUNS[match.measure]} of {match.row!r}"
        raise ValueError(f"no {match.by} was found within {100 * MAX_DIFFERENCE:g} % of the {wants}: {nearest}")
    return solution


def _to_value(steps: int, step: float) -> float:
    return steps if step == 1 else round(steps * step, 2)


def find_nearest(count: Count, start: int, target: int) -> tuple[int, int]:
    """The number of steps whose cost is nearest to the target, and this cost; of two the smaller.

    Args:
        count: the cost, which grows with the steps.
        start: a possible number of steps.
        target: a cost.

    Raises:
        ValueError: the cost does not grow.
    """
    below, above = _bracket(count, start, target)
    trials = 0
    while below is not None and above is not None:
        width, trials = above[0] - below[0], trials + 1
        share = 0.5 if trials % 3 == 0 else (target - below[1]) / (above[1] - below[1])
        found = _find_possible(count, below[0] + round(share * width), below[0], above[0])
        if found is None:
            break
        below, above = (found, above) if found[1] < target else (below, found)
    return min((end for end in (below, above) if end is not None), key=lambda end: abs(end[1] - target))


def _bracket(count: Count, start: int, target: int) -> tuple[_Point | None, _Point | None]:
    """Points below the target, and at or above it, as close as doubling and halving find them; None: there is none."""
    cost = count(start)
    assert cost is not None, "a search starts at the size of a cell that was resolved"
    point, is_below = (start, cost), cost < target
    while True:
        if is_below:
            wider = (_find_possible(count, point[0] + more, point[0], None) for more in _halve(max(point[0], 1)))
            found = next((each for each in wider if each is not None), None)
        else:
            found = _find_possible(count, point[0] // 2, 0, point[0])
        if found is None:
            return (point, None) if is_below else (None, point)
        if is_below and found[1] <= point[1]:
            raise ValueError(f"it is {point[1]:,} and {found[1]:,} at two values")
        if not is_below and found[1] > point[1]:  # timm reads a width of 0 as the default
            return None, point
        if (found[1] < target) != is_below:
            return (point, found) if is_below else (found, point)
        point = found


def _halve(number: int) -> Iterator[int]:
    while number:
        yield number
        number //= 2


def _find_possible(count: Count, guess: int, low: int, high: int | None) -> _Point | None:
    """The possible number of steps nearest to a guess, strictly between two others."""
    for distance in range(MAX_GAP):
        for steps in dict.fromkeys((guess + distance, guess - distance)):
            if low < steps and (high is None or steps < high):
                cost = count(steps)
                if cost is not None:
                    return steps, cost
    return None


def _find_cache(cell: Cell, target: Cell, match: MatchSpec) -> Path:
    """The file of a solved size in the user's cache, named after all that the solution depends on."""
    content = {
        "cells": [_describe(each) for each in (cell, target)],
        "code": [code_digest(each) for each in (cell, target)],
        "versions": [version(package) for package in ("torch", "timm")],
        "match": [match.measure, match.by, STEP],
    }
    return locate_cached("matched", content)


def _describe(cell: Cell) -> dict[str, Any]:
    """What the size of a cell's model depends on."""
    shapes = {"image_size", "channels", "num_classes", "task"}
    return {**cell.to_canonical(), "training": {}, "data": cell.data.model_dump(mode="json", include=shapes)}
