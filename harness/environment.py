"""What decides rounding: equal code trained in two environments gives numbers that differ from their last digits on.

Which kernels computed a run is part of its provenance, but not of what two rows must share: it follows from the row.
"""

from collections.abc import Iterable, Mapping, Sequence

from harness.division import Division
from harness.spec import RecipeSpec

ENVIRONMENT = ("torch", "torchvision", "timm", "numpy", "device", "instructions", "threads")
"""Of a run's provenance; precision is part of its cell."""

STEP = {"processes": "1", "accumulation": "1", "compile": "no", "channels_last": "no"}
"""How a step is computed, also part of the environment: a provenance states it where it differs from this."""


def describe_step(division: Division, recipe: RecipeSpec) -> dict[str, str]:
    """How a step is computed, as far as it differs from `STEP`."""
    stated = {
        "processes": str(division.processes),
        "accumulation": str(division.accumulation),
        "compile": "yes" if recipe.compile else "no",
        "channels_last": "yes" if recipe.channels_last else "no",
    }
    return {name: value for name, value in stated.items() if value != STEP[name]}


def list_changes(
    first: Mapping[str, str], second: Mapping[str, str], names: Sequence[str] = (*ENVIRONMENT, *STEP)
) -> list[str]:
    """The names under which two provenances state different values."""
    first, second = {**STEP, **first}, {**STEP, **second}
    return [name for name in names if name in first and name in second and first[name] != second[name]]


def is_same_environment(first: Mapping[str, str], second: Mapping[str, str]) -> bool:
    """Whether two runs were made in one environment, as far as both of their provenances state it."""
    return not list_changes(first, second)


def is_mixed(provenances: Iterable[Mapping[str, str]]) -> bool:
    """Whether some runs were made in another environment than the first."""
    first, *others = list(provenances) or [{}]
    return not all(is_same_environment(first, other) for other in others)
