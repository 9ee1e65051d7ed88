"""Finds what differs between two rows besides what they state: a confound of their comparison.

The recipe and the sizes of two cells are compared field by field, and the traces of their rehearsals by what both of
them share: steps, images, learning rates, optimizer, groups of parameters, initial values.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.cell import RESOLVED, WITHOUT_EFFECT, Cell
from harness.document import join_errors
from harness.plan import Plan
from harness.resolve import list_applied_recipes
from harness.spec import ExperimentSpec, RowSpec
from harness.trace import Rehearsal

Trace = Mapping[str, Any]

Stated = tuple[RowSpec, Cell]
"""A row with all that it inherits, and its cell."""


@dataclass(frozen=True)
class Confound:
    """A difference that a row does not state; `name` is what its `also_changes` may name."""

    name: str
    detail: str


def check_confounds(plan: Plan, rehearsals: Mapping[str, Rehearsal]) -> None:
    """Refuse rows that differ from the baseline in more than they state.

    Args:
        plan: rows that the experiment does not state are compared with nothing: floors, and what a search adds. Nor is
            a placebo, whose cell is the baseline's.
        rehearsals: by cell; a row is compared by its cell alone unless it and the baseline have a trace of the same
            replicate and environment.

    Raises:
        SpecError: an undeclared difference, or several.
    """
    stated = plan.stated
    rows = {row.name: row for row in plan.rows if row.name in stated and not row.is_placebo}
    base, errors = rows.get(plan.spec.baseline), []
    if base is None:
        return
    for row in rows.values():
        own = stated[row.name]
        found = find_confounds(plan.spec, (own, row.cell), (stated[base.name], base.cell), rehearsals)
        undeclared = [confound for confound in found if not _is_declared(confound.name, row.also_changes)]
        if undeclared:
            what = "; ".join(f"{confound.name} ({confound.detail})" for confound in undeclared)
            names = ", ".join(confound.name for confound in undeclared)
            message = f"{row.name} differs from {base.name} in more than it states: {what}; also_changes: [{names}]"
            place = ("rows", row.name) if row.name in plan.spec.rows else ()
            errors.append(plan.spec.error(f"{message} declares it", *place))
    if errors:
        raise join_errors(errors)


def find_confounds(
    spec: ExperimentSpec, row: Stated, baseline: Stated, rehearsals: Mapping[str, Rehearsal]
) -> list[Confound]:
    """What differs between a row's cell and the baseline's that neither a field of the row nor the recipe says."""
    (_, cell), (_, base) = row, baseline
    of_recipe = list(_compare_recipe(spec, row, baseline))
    own, other = rehearsals.get(cell.id), rehearsals.get(base.id)
    if own is None or other is None or not own.is_comparable(other):
        return of_recipe
    return [*of_recipe, *_compare_traces(cell, base, own.trace, other.trace)]


def _is_declared(name: str, declared: tuple[str, ...]) -> bool:
    """By its name, or by that of the part that it belongs to."""
    return any(name == one or name.startswith(f"{one}.") for one in declared)


def _compare_recipe(spec: ExperimentSpec, own: Stated, baseline: Stated) -> Iterator[Confound]:
    (row, cell), (base_row, base) = own, baseline
    backbone, base_backbone = (stated.backbone or spec.cell.backbone for stated in (row, base_row))
    has_own_training = not spec.recipe.training_of.keys().isdisjoint({backbone, base_backbone})
    if not has_own_training:
        yield from _compare_fields("training", cell.training.model_dump(), base.training.model_dump(), set())
    explained = WITHOUT_EFFECT | (set() if row.image_size is None else {"image_size"})
    yield from _compare_fields("data", cell.data.model_dump(), base.data.model_dump(), explained)
    if backbone == base_backbone:
        stated = {key for recipe in list_applied_recipes(spec) for key in row.sizes.get(recipe.name, {})}
        yield from _compare_fields("sizes", cell.sizes.model_dump(), base.sizes.model_dump(), RESOLVED | stated)


def _compare_fields(
    part: str, own: Mapping[str, Any], other: Mapping[str, Any], explained: set[str]
) -> Iterator[Confound]:
    for name in [name for name in own if name in other and name not in explained]:
        if own[name] == other[name]:
            continue
        if isinstance(own[name], Mapping) and isinstance(other[name], Mapping):
            yield from _compare_fields(f"{part}.{name}", own[name], other[name], set())
        else:
            yield Confound(f"{part}.{name}", f"{own[name]} and {other[name]}")


def _compare_traces(cell: Cell, base: Cell, own: Trace, other: Trace) -> Iterator[Confound]:
    """Where the cells state different training, data or initial weights, what follows from it is no news."""
    if cell.training == base.training and cell.data == base.data:
        yield from _compare_parts(own, other)
    if cell.training == base.training and cell.backbone == base.backbone:
        yield from _compare_groups(own, other)
    if cell.init_from == base.init_from is None and _get_initialization(cell) == _get_initialization(base):
        yield from _compare_initial(own, other)


def _get_initialization(cell: Cell) -> tuple[Any, ...]:
    """All that decides how parameters are drawn."""
    sizes = cell.sizes.model_dump()
    rules = sorted({config.initialization for config in cell.operators()})
    return cell.backbone, sizes.get("weight_init"), sizes.get("initialization"), tuple(rules)


def _compare_parts(own: Trace, other: Trace) -> Iterator[Confound]:
    for name, part, what in (
        ("steps", "steps", "epochs, steps an epoch and images a step"),
        ("images", "images", "images to train, validate and test on"),
        ("average", "average", "a moving average of the weights"),
    ):
        if own[part] != other[part]:
            yield Confound(name, f"{what}: {own[part]} and {other[part]}")
    if own["learning_rates"] != other["learning_rates"]:
        epochs = [
            number // 2 + 1
            for number, rates in enumerate(zip(own["learning_rates"], other["learning_rates"], strict=False))
            if set(rates[0]) != set(rates[1])
        ]
        if epochs:
            yield Confound("learning_rates", f"from epoch {epochs[0]} on")
    if own["batches"] != other["batches"]:
        yield Confound("training_images", "the same replicate sees other images, another order or augmentation")
    if own["evaluated"] != other["evaluated"]:
        yield Confound("evaluated_images", "validation or test images differ")


def _compare_groups(own: Trace, other: Trace) -> Iterator[Confound]:
    if own["optimizer"]["name"] != other["optimizer"]["name"]:
        yield Confound("optimizer", f"{own['optimizer']['name']} and {other['optimizer']['name']}")
        return
    first, second = _list_settings(own), _list_settings(other)
    for name in _list_shared(own, other):
        if first[name] != second[name]:
            keys = [key for key, value in first[name].items() if value != second[name].get(key)]
            listed = ", ".join(f"{key} {first[name][key]} and {second[name].get(key)}" for key in keys)
            yield Confound("parameter_groups", f"{name}: {listed}")
            return


def _list_settings(trace: Trace) -> dict[str, dict[str, Any]]:
    """By parameter, the settings of its group."""
    return {name: group["settings"] for group in trace["optimizer"]["groups"] for name in group["parameters"]}


def _list_shared(own: Trace, other: Trace) -> list[str]:
    """The trained parameters that two models share: by name and shape, as all others of their module.

    A bias is drawn by the width of its weight: it is shared where the weight is.
    """
    first, second = _list_modules(own), _list_modules(other)
    shared = [module for module, shapes in first.items() if shapes == second.get(module)]
    return [path for module in shared for path in first[module]]


def _list_modules(trace: Trace) -> dict[str, dict[str, Any]]:
    """By module, the shapes of its trained parameters by their whole names."""
    modules: dict[str, dict[str, Any]] = {}
    trained = _list_settings(trace)
    for path, (shape, _) in trace["initial"].items():
        if path in trained:
            modules.setdefault(path.rpartition(".")[0], {})[path] = shape
    return modules


def _compare_initial(own: Trace, other: Trace) -> Iterator[Confound]:
    differing = [name for name in _list_shared(own, other) if own["initial"][name] != other["initial"][name]]
    if differing:
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        yield Confound("initial_values", f"{differing[0]}{more}")
