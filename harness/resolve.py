"""From the rows of an experiment to their cells: every field is resolved and every combination checked."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import ValidationError

from harness.cell import Cell
from harness.document import describe_mistake, join_errors
from harness.errors import SpecError
from harness.initial import FromRun, Initial, read_file
from harness.redundancy import find_idle_fields, list_parts
from harness.rows import list_ablations
from harness.spec import (
    BackboneSpec,
    DataSpec,
    ExperimentSpec,
    FrameworkSpec,
    Heads,
    OperatorSpec,
    RecipeSpec,
    RowSpec,
    TrainingSpec,
)
from harness.tasks import TASKS
from paradigms.config import AttentionConfig, make_config
from paradigms.facts import to_pair, unknown_name
from paradigms.presets import get_preset
from paradigms.requirements import require_batch, require_map, require_width

MAX_PAIRS = 30_000_000
"""Pairs of query and key of one head: a DeiT on images of 1,024 pixels has 17 million."""

_OF_BACKBONE = {"window_size", "initialization"}
"""Fields of the operator that the sizes of a backbone state."""

_NO_OPERATOR = {"backend"}
"""Fields of the operator that alone do not ask for one where the backbone has its own attention."""


def resolve_row(spec: ExperimentSpec, name: str, rows: Mapping[str, RowSpec]) -> Cell:
    """The cell of one of the rows under the recipe.

    Raises:
        SpecError: the row asks for an impossible combination, or starts from weights that do not exist.
    """
    row = rows[name]
    data = _get_data(spec, row)
    sizes = _get_sizes(spec, name, row)
    num_stages = len(sizes.num_heads)
    _check_stages(spec, name, row, sizes)
    stages = [_layers(spec, row, stage, num_stages) for stage in range(num_stages)]
    try:
        attention = tuple(
            _resolve_operator(layers, sizes, data.image_size) if stage in sizes.operator_stages else None
            for stage, layers in enumerate(stages, start=1)
        )
        num_heads = tuple(_resolve_heads(layers, sizes, stage) for stage, layers in enumerate(stages))
    except ValueError as error:
        raise error_in_row(spec, name, str(error)) from None
    _check_pairs(spec, name, attention, data.image_size // sizes.patch_size)
    training, initial = _get_training(spec, name, row, sizes, data), _find_initial(spec, name, rows)
    framework = _get_framework(spec, name, row, sizes)
    cell = Cell(sizes.family, sizes, attention, num_heads, data, training, initial, framework)
    _require_places(spec, name, cell, sizes)
    return cell


def _require_places(spec: ExperimentSpec, name: str, cell: Cell, sizes: BackboneSpec) -> None:
    """Whatever is accepted can be built and trained: each operator fits its stage's width, heads, map and batch."""
    for stage, (config, heads) in enumerate(zip(cell.attention, cell.num_heads, strict=True), start=1):
        if config is None:
            continue
        map_size = sizes.map_size(stage, cell.data.image_size)
        try:
            require_width(config, dim=sizes.widths[stage - 1], num_heads=heads)
            if map_size is not None:
                require_map(config, map_size, num_blocks=sizes.num_blocks(stage))
                require_batch(config, map_size, batch_size=cell.training.batch_size)
        except ValueError as error:
            raise error_in_row(spec, name, f"stage {stage}: {error}") from None


def _check_pairs(spec: ExperimentSpec, name: str, attention: Sequence[AttentionConfig | None], side: int) -> None:
    """A neighborhood and a map that are both very large fit into no memory, not even to be described."""
    for config in attention:
        if config is None:
            continue
        facts = config.neighborhood_facts
        rows, columns = (facts.span * size for size in to_pair(getattr(config, facts.size)))
        pairs = side**2 * rows * columns
        if pairs > MAX_PAIRS:
            message = f"{config.neighborhood} of {rows}x{columns} on a map of {side}x{side} has {pairs:,} pairs"
            raise error_in_row(spec, name, f"{message} of query and key, more than {MAX_PAIRS:,}")


def _get_data(spec: ExperimentSpec, row: RowSpec) -> DataSpec:
    """The recipe's data, in the row's own image size where it states one."""
    data = spec.recipe.data
    return data if row.image_size is None else data.model_copy(update={"image_size": row.image_size})


def _get_framework(spec: ExperimentSpec, name: str, row: RowSpec, sizes: BackboneSpec) -> FrameworkSpec | None:
    """What the recipe's task puts on a row's backbone, in the recipe's sizes."""
    task, framework = spec.recipe.data.task, row.framework or spec.cell.framework
    possible = TASKS[task].frameworks
    if framework is None and not possible:
        return None
    if framework not in possible:
        known = f"one of {', '.join(possible)}" if possible else "none"
        got = "none" if framework is None else repr(framework)
        message = f"framework must be {known} for task {task!r}, got {got}"
        if row.framework is None and framework is not None:
            raise spec.error(message, "cell", "framework")
        raise error_in_row(spec, name, message)
    if not sizes.has_pyramid:
        raise error_in_row(
            spec, name, f"framework {framework!r} needs maps of several scales, a {sizes.label} has none"
        )
    if row.init_from is not None:
        raise error_in_row(spec, name, f"framework {framework!r} is trained from scratch", "init_from")
    found: FrameworkSpec = getattr(spec.recipe.frameworks, framework)
    return found


def _get_training(spec: ExperimentSpec, name: str, row: RowSpec, sizes: BackboneSpec, data: DataSpec) -> TrainingSpec:
    """The recipe's training of a row's backbone; token labels need a head over all tokens, and as many tokens."""
    recipe, backbone = spec.recipe, row.backbone or spec.cell.backbone
    training = recipe.training_of.get(backbone, recipe.training)
    grid = sizes.token_grid(data.image_size)
    if training.token_labels is not None and training.token_labels.grid != grid:
        has = "has no head over its tokens (use_aux_head)" if grid is None else f"has {grid} tokens a side"
        message = f"token_labels.grid is {training.token_labels.grid}, but backbone {backbone!r} {has}"
        raise error_in_row(spec, name, f"recipe {recipe.name!r}: {message}")
    return training


def _get_sizes(spec: ExperimentSpec, name: str, row: RowSpec) -> BackboneSpec:
    """The recipe's sizes of a row's backbone, with what the cell and the row replace of them."""
    sizes: BackboneSpec = getattr(spec.recipe.backbones, row.backbone or spec.cell.backbone)
    if row.backbone in (None, spec.cell.backbone):
        sizes = _replace_sizes(spec, sizes, spec.cell.sizes, ("cell",))
    sizes = _replace_sizes(spec, sizes, row.sizes, ("rows", name))
    try:
        sizes.require_image(_get_data(spec, row).image_size)
    except ValueError as error:
        raise error_in_row(spec, name, f"recipe {spec.recipe.name!r}: {error}") from None
    return sizes


def _replace_sizes(
    spec: ExperimentSpec, sizes: BackboneSpec, stated: Mapping[str, Mapping[str, Any]], place: tuple[str, ...]
) -> BackboneSpec:
    """The sizes with those that are stated for this recipe, checked like a recipe's own."""
    for recipe in list_applied_recipes(spec):
        sizes = _change_sizes(spec, sizes, stated.get(recipe.name, {}), (*place, "sizes", recipe.name))
    return sizes


def _change_sizes(
    spec: ExperimentSpec, sizes: BackboneSpec, changes: Mapping[str, Any], place: tuple[str, ...]
) -> BackboneSpec:
    """The sizes with some of them replaced."""
    unknown = [key for key in changes if key not in type(sizes).model_fields]
    if unknown:
        raise spec.error(unknown_name("size", unknown[0], tuple(type(sizes).model_fields)), *place, unknown[0])
    try:
        return type(sizes).model_validate({**sizes.model_dump(), **changes})
    except ValidationError as error:
        detail = error.errors()[0]
    raise spec.error(describe_mistake(detail), *place, *detail["loc"])


def _check_stages(spec: ExperimentSpec, name: str, row: RowSpec, sizes: BackboneSpec) -> None:
    """What a row states for some stages must be possible in every one of them."""
    num_stages = len(sizes.num_heads)
    for selector in row.stages:
        if isinstance(selector, int) and selector > num_stages:
            raise error_in_row(spec, name, f"the backbone has stages 1 to {num_stages}", "stages", selector)
        named = {stage for stage in range(1, num_stages + 1) if selector in _selectors(stage, num_stages)}
        fixed = sorted(named - set(sizes.operator_stages))
        if fixed:
            possible = ", ".join(map(str, sizes.operator_stages))
            message = (
                f"the attention of stage {', '.join(map(str, fixed))} of a {sizes.family} cannot be replaced; "
                f"stages that can: {possible}"
            )
            raise error_in_row(spec, name, message, "stages", selector)


def _selectors(stage: int, num_stages: int) -> tuple[int | str, ...]:
    """The keys of `stages` that mean a stage (from 1), the more specific later."""
    return "all", "last" if stage == num_stages else "not_last", stage


def _layers(spec: ExperimentSpec, row: RowSpec, stage: int, num_stages: int) -> list[OperatorSpec]:
    """What a stage (from 0) inherits, the more specific later.

    That is the cell, the row, the row `under` this recipe (before that, under the one that it starts from), and of
    `stages`: `all`, `not_last` or `last`, its number.
    """
    under = [row.under[recipe.name] for recipe in list_applied_recipes(spec) if recipe.name in row.under]
    chosen = [row.stages[key] for key in _selectors(stage + 1, num_stages) if key in row.stages]
    return [spec.cell, row, *under, *chosen]


def _resolve_operator(layers: list[OperatorSpec], sizes: BackboneSpec, image_size: int) -> AttentionConfig | None:
    if not any(layer.preset is not None or set(layer.stated()) - _NO_OPERATOR for layer in layers):
        own = sizes.own_operator(image_size)
        if own is None:
            return None
    fields: dict[str, Any] = {}
    for layer in layers:
        fields = {**(fields if layer.preset is None else _expand(layer.preset)), **layer.stated()}
    base = sizes.base_operator(image_size).replace(initialization=sizes.initialization)
    return make_config(fields, base=base)


def _expand(preset: str) -> dict[str, Any]:
    """What a preset states: everything, except that the backbone's fields hold where the preset has none of its own."""
    default, config = AttentionConfig().to_dict(), get_preset(preset).config.to_dict()
    return {name: value for name, value in config.items() if name not in _OF_BACKBONE or value != default[name]}


def _resolve_heads(layers: list[OperatorSpec], sizes: BackboneSpec, stage: int) -> int:
    stated: list[Heads] = [layer.heads for layer in layers if layer.heads is not None]
    heads = _count_heads(stated[-1] if stated else "1x", sizes, stage)
    width = sizes.widths[stage]
    if width % heads:
        raise ValueError(f"heads must divide the width, got {heads} heads and width {width} in stage {stage + 1}")
    return heads


def _count_heads(heads: Heads, sizes: BackboneSpec, stage: int) -> int:
    own = sizes.num_heads[stage]
    if isinstance(heads, tuple):
        return _pick_heads(heads, sizes, stage)
    if stage + 1 not in sizes.operator_stages:
        return own
    if isinstance(heads, int):
        return heads
    return {"1x": own, "2x": 2 * own, "C": sizes.widths[stage]}[heads]


def _pick_heads(heads: tuple[int, ...], sizes: BackboneSpec, stage: int) -> int:
    """A list says something of every stage: of one that keeps its attention it may only repeat what is there."""
    if len(heads) != len(sizes.num_heads):
        raise ValueError(f"heads needs one number per stage ({len(sizes.num_heads)}), got {list(heads)}")
    if stage + 1 not in sizes.operator_stages and heads[stage] != sizes.num_heads[stage]:
        raise ValueError(f"stage {stage + 1} keeps its {sizes.num_heads[stage]} heads, got {list(heads)}")
    return heads[stage]


def _find_initial(spec: ExperimentSpec, name: str, rows: Mapping[str, RowSpec]) -> Initial | None:
    """Where a row's weights start: its run under the recipe that this one starts from, or a file."""
    init_from, recipe = rows[name].init_from, spec.recipe.init_recipe
    if init_from is None or recipe is None:
        return None
    if init_from not in rows:
        try:
            return read_file(init_from, rows)
        except ValueError as error:
            raise error_in_row(spec, name, str(error), "init_from") from None
    if rows[init_from].init_from is not None:
        raise error_in_row(spec, name, f"{init_from} is not trained from scratch itself", "init_from")
    trained = spec.model_copy(update={"recipe": recipe})
    return FromRun(resolve_row(trained, init_from, rows).id, init_from, recipe.name)


def check_fields(spec: ExperimentSpec, rows: Mapping[str, tuple[RowSpec, Cell]]) -> None:
    """A field that a row states has an effect in one of its stages."""
    errors = []
    for name, (row, cell) in rows.items():
        sizes = cast("BackboneSpec", cell.sizes)
        stages = [
            (_layers(spec, row, stage - 1, len(cell.attention)), cell.attention[stage - 1])
            for stage in sizes.operator_stages
        ]
        parts = list_parts(row, [recipe.name for recipe in list_applied_recipes(spec)])
        keys = {id(part): key for key, part in parts.items()}
        for part, field, reason in find_idle_fields(parts.values(), stages):
            errors.append(error_in_row(spec, name, reason, *keys[id(part)], field))
    if errors:
        raise join_errors(errors)


def list_applied_recipes(spec: ExperimentSpec) -> list[RecipeSpec]:
    """Whose name a row may state fields for: the recipe comes last, the one that it starts from holds too."""
    return [recipe for recipe in (spec.recipe.init_recipe, spec.recipe) if recipe is not None]


def error_in_row(spec: ExperimentSpec, name: str, message: str, *key: str | int) -> SpecError:
    """The mistake in a row, at its place; a row that `factors` or `ablate` make has none of its own."""
    if name in spec.rows:
        return spec.error(message, "rows", name, *key)
    if name in list_ablations(spec):
        return spec.error(message, "ablate", name)
    return spec.error(f"{name}: {message}", "factors")
