"""Finds rows whose training differs from the recipe's common part, for the notes below a table."""

from collections.abc import Iterator, Mapping
from typing import Any

from harness.plan import Plan
from harness.spec import TrainingSpec


def to_training_notes(plan: Plan) -> Iterator[str]:
    """A sentence for each training that differs from the recipe's `training`, with its rows and these fields."""
    shared = plan.spec.recipe.training
    for training in plan.trainings:
        if training != shared:
            rows = ", ".join(row.name for row in plan.rows if row.cell.training == training)
            yield f"Trained otherwise than all: {rows}; {', '.join(_list_changes(shared, training))}."


def _list_changes(shared: TrainingSpec, own: TrainingSpec) -> Iterator[str]:
    before, after = _flatten(shared.model_dump(mode="json")), _flatten(own.model_dump(mode="json"))
    for name in {**after, **before}:
        if before.get(name) != after.get(name):
            instead = f" instead of {_show(before[name])}" if name in before else ""
            yield f"{name} {_show(after.get(name))}{instead}"


def _flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by their path, such as `augmentation.mixup`."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _show(value: object) -> str:
    if value is None:
        return "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
