"""From a spec to the ordered, finite list of (cell, replicate); cell ids."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any, cast

from pydantic import ValidationError

from harness.document import describe_mistake, join_errors
from harness.errors import SpecError
from harness.initial import FromRun, Initial, explain_mismatch, inherit, read_file
from harness.reading import error_at
from harness.redundancy import (
    differ_by_recipe,
    explain_repetition,
    find_idle_fields,
    find_repeated,
    list_parts,
)
from harness.rows import list_rows
from harness.spec import (
    BackboneSpec,
    DataSpec,
    Expectation,
    ExperimentSpec,
    Heads,
    LinearSpec,
    MlpSpec,
    OperatorSpec,
    RecipeSpec,
    RowSpec,
    Spec,
    TrainingSpec,
)
from paradigms.config import TERMS, AttentionConfig, make_config
from paradigms.facts import to_pair, unknown_name
from paradigms.presets import get_preset
from paradigms.requirements import require_batch, require_map, require_width

FLOORS = ("Linear classifier", "One hidden layer")
"""The rows that a recipe with `floor_width` adds under every table."""

MAX_PAIRS = 30_000_000
"""Pairs of query and key of one head: a DeiT on images of 1,024 pixels has 17 million."""

FACTORS = ("backbone", "parameterization", "normalization", "neighborhood", "aggregation", "heads")
"""What `Cell.factors` has a level of."""

ALL = "all"
"""What `Cell.terms` has for a term of every stage."""

_RESOLVED = {"num_heads", "window_size", "initialization"}
"""Sizes of a backbone that the operator and the heads of a cell already say."""

_OF_BACKBONE = {"window_size", "initialization"}
"""Fields of the operator that the sizes of a backbone state."""

_NO_OPERATOR = {"backend"}
"""Fields of the operator that alone do not ask for one where the backbone has its own attention."""

_WITHOUT_EFFECT = {"loading_workers"}
"""Fields of the data that change no number."""


@dataclass(frozen=True)
class Cell:
    """One full combination of levels: operator × backbone × data × recipe; known by its content alone.

    Attributes:
        backbone: a level's name, or `linear` / `mlp` for a floor.
        sizes: the backbone's sizes under the recipe.
        attention: the operator of each stage, None where timm's own attention stands; empty for a floor.
        num_heads: of each stage; empty for a floor.
        init_from: where the weights start; None: from scratch.
    """

    backbone: str
    sizes: Spec
    attention: tuple[AttentionConfig | None, ...]
    num_heads: tuple[int, ...]
    data: DataSpec
    training: TrainingSpec
    init_from: Initial | None = None

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits of the content: whatever resolves to the same cell has the same id."""
        content = json.dumps(self.to_canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def to_canonical(self) -> dict[str, Any]:
        """The content in JSON's types, less what is at its default and what has no effect."""
        stages = [None if config is None else config.to_canonical() for config in self.attention]
        shared = all(stage == stages[0] for stage in stages)
        return {
            "backbone": self.backbone,
            "sizes": _to_stated(self.sizes, _RESOLVED),
            "attention": stages[:1] if shared else stages,
            "num_heads": list(self.num_heads),
            "data": _to_stated(self.data, _WITHOUT_EFFECT),
            "training": _to_stated(self.training, set()),
            **({} if self.init_from is None else {"init_from": self.init_from.identity}),
        }

    def levels(self) -> frozenset[str]:
        """Every level that the cell names: of its operators, its backbone, its dataset, its task."""
        named = frozenset({self.backbone, self.data.name, self.data.task})
        return named.union(*(config.levels() for config in self.operators()))

    def operators(self) -> tuple[AttentionConfig, ...]:
        """The operators of the stages that have one."""
        return tuple(config for config in self.attention if config is not None)

    def factors(self) -> dict[str, str]:
        """The level of each factor as people read it; empty where the cell has no operator."""
        return {
            "backbone": self.backbone,
            "parameterization": _join_stages([" + ".join(config.parameterization) for config in self.operators()]),
            "normalization": _join_stages([config.normalization for config in self.operators()]),
            "neighborhood": _join_stages([config.neighborhood for config in self.operators()]),
            "aggregation": _join_stages([config.aggregation for config in self.operators()]),
            "heads": ", ".join(str(heads) for heads in self.num_heads),
        }

    def terms(self) -> dict[str, str]:
        """Where each term of Eq. 4 is part of the logits: `all` stages, some (`1, 3`) or none (empty).

        `other` is the parameterization of the stages that have none of them, with their numbers unless it is of all.
        """
        operators = self.operators()
        stages = {
            term: [n for n, config in enumerate(operators, start=1) if term in config.parameterization]
            for term in TERMS
        }
        names = [
            "" if set(config.parameterization) & set(TERMS) else config.parameterization[0] for config in operators
        ]
        other = {name: [n for n, own in enumerate(names, start=1) if own == name] for name in names if name}
        told = {name: _tell_stages(found, len(operators)) for name, found in {**stages, **other}.items()}
        shown = (name if told[name] == ALL else f"{name} ({told[name]})" for name in other)
        return {**{term: told[term] for term in TERMS}, "other": ", ".join(shown)}


@dataclass(frozen=True)
class PlannedRow:
    """A row of the table: its name, its cell, and whether it is a floor (a model without attention)."""

    name: str
    cell: Cell
    expect: Expectation | None = None
    is_floor: bool = False


@dataclass(frozen=True)
class PlannedRun:
    """One (cell, replicate): what `run_cell` executes."""

    row: PlannedRow
    seed: int


@dataclass(frozen=True)
class SkippedRow:
    """A row that the recipe cannot run, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """All rows and, replicate-major, all runs of an experiment under its recipe; `skipped` rows have no runs."""

    spec: ExperimentSpec
    rows: tuple[PlannedRow, ...]
    runs: tuple[PlannedRun, ...]
    skipped: tuple[SkippedRow, ...] = ()

    @property
    def trainings(self) -> tuple[TrainingSpec, ...]:
        """Every way in which a row is trained."""
        return tuple(dict.fromkeys(row.cell.training for row in self.rows))


def make_plan(spec: ExperimentSpec, *, is_derived: bool = False) -> Plan:
    """Resolve every row to its cell; seed 0 of every row comes first, so that stopping early leaves a balanced table.

    A row on a backbone that the recipe has no sizes for is skipped; so the baseline cannot be. A row that starts from
    trained weights is skipped by a recipe that trains from scratch, and every other row by one that does not. Of two
    rows that are one cell under this recipe, because of what they state for single recipes, one is skipped.

    Args:
        spec: the experiment.
        is_derived: whether a program has made the rows, as a search does: they may be one cell, or state fields
            without effect.

    Raises:
        SpecError: a row asks for an impossible combination, starts from what is not there, states a field without
            effect, or is the cell of another row.
    """
    listed = list_rows(spec)
    stated = {name: inherit(row, listed) for name, row in listed.items()}
    skipped = tuple(_find_skipped(spec, stated))
    left_out = {row.name for row in skipped}
    planned = [
        PlannedRow(name, replace(_make_cell(spec, name, row), init_from=_find_initial(spec, name, stated)), row.expect)
        for name, row in stated.items()
        if name not in left_out
    ]
    if not is_derived:
        _check_fields(spec, {row.name: (stated[row.name], row.cell) for row in planned})
        repeated = _find_repeated(spec, planned, stated)
        planned = [row for row in planned if row.name not in {row.name for row in repeated}]
        skipped = (*skipped, *repeated)
    rows = (*planned, *_floors(spec, stated))
    runs = tuple(PlannedRun(row, seed) for seed in range(spec.seeds) for row in rows)
    return Plan(spec, rows, runs, skipped)


def _find_skipped(spec: ExperimentSpec, rows: Mapping[str, RowSpec]) -> Iterator[SkippedRow]:
    for name, row in rows.items():
        mismatch = explain_mismatch(spec, row)
        if mismatch is not None:
            yield SkippedRow(name, mismatch)
            continue
        backbone = row.backbone or spec.cell.backbone
        lacking = [recipe.name for recipe in _list_recipes(spec) if getattr(recipe.backbones, backbone) is None]
        if lacking:
            reason = f"recipe {lacking[0]!r} has no sizes for backbone {backbone!r}"
            if name == spec.baseline:
                raise _error_in(spec, name, reason)
            yield SkippedRow(name, reason)


def _check_fields(spec: ExperimentSpec, rows: Mapping[str, tuple[RowSpec, Cell]]) -> None:
    """A field that a row states has an effect in one of its stages."""
    errors = []
    for name, (row, cell) in rows.items():
        sizes = cast("BackboneSpec", cell.sizes)
        stages = [
            (_layers(spec, row, stage - 1, len(cell.attention)), cell.attention[stage - 1])
            for stage in sizes.operator_stages
        ]
        parts = list_parts(row, [recipe.name for recipe in _list_recipes(spec)])
        keys = {id(part): key for key, part in parts.items()}
        for part, field, reason in find_idle_fields(parts.values(), stages):
            errors.append(_error_in(spec, name, reason, *keys[id(part)], field))
    if errors:
        raise join_errors(errors)


def _find_repeated(
    spec: ExperimentSpec, planned: Sequence[PlannedRow], stated: Mapping[str, RowSpec]
) -> list[SkippedRow]:
    """The rows to skip since another row has their cell under this recipe; an error where it is so under every one."""
    skipped, recipe = [], spec.recipe.name
    for name, kept in find_repeated([(row.name, row.cell.id) for row in planned], baseline=spec.baseline):
        reason = explain_repetition(kept, recipe)
        if not differ_by_recipe(stated[name], stated[kept]):
            raise _error_in(spec, name, f"{reason}, and a table would count it twice")
        skipped.append(SkippedRow(name, reason))
    return skipped


def _list_recipes(spec: ExperimentSpec) -> list[RecipeSpec]:
    """Whose name a row may state fields for: the recipe comes last, the one that it starts from holds too."""
    return [recipe for recipe in (spec.recipe.init_recipe, spec.recipe) if recipe is not None]


def _find_initial(spec: ExperimentSpec, name: str, rows: Mapping[str, RowSpec]) -> Initial | None:
    """Where a row's weights start: its run under the recipe that this one starts from, or a file."""
    init_from, recipe = rows[name].init_from, spec.recipe.init_recipe
    if init_from is None or recipe is None:
        return None
    if init_from not in rows:
        try:
            return read_file(init_from, rows)
        except ValueError as error:
            raise _error_in(spec, name, str(error), "init_from") from None
    if rows[init_from].init_from is not None:
        raise _error_in(spec, name, f"{init_from} is not trained from scratch itself", "init_from")
    trained = spec.model_copy(update={"recipe": recipe})
    return FromRun(_make_cell(trained, init_from, rows[init_from]).id, init_from, recipe.name)


def _error_in(spec: ExperimentSpec, name: str, message: str, *key: str | int) -> SpecError:
    """The mistake in a row, at its place; a row that factors make has none of its own."""
    if name in spec.rows:
        return error_at(spec, message, "rows", name, *key)
    return error_at(spec, f"{name}: {message}", "factors")


def find_row(plan: Plan, name: str) -> PlannedRow:
    """A row by its name; floors have theirs.

    Raises:
        SpecError: the plan has no such row, or skips it; the message tells the nearest and all of them, or the reason.
    """
    rows = {row.name: row for row in plan.rows}
    for row in plan.skipped:
        if row.name == name:
            raise SpecError(f"row {name!r} is skipped: {row.reason}", path=plan.spec.path)
    if name not in rows:
        raise SpecError(unknown_name("row", name, tuple(rows)), path=plan.spec.path)
    return rows[name]


def _tell_stages(stages: Sequence[int], total: int) -> str:
    return ALL if stages and len(stages) == total else ", ".join(map(str, stages))


def select_rows(plan: Plan, names: Sequence[str]) -> Plan:
    """The plan of some rows alone, in the plan's order; of all where no name is given.

    Args:
        plan: of the whole experiment.
        names: of rows or floors, also several in one text with commas between them; a name may have commas itself.

    Raises:
        SpecError: there is no such row.
    """
    if not names:
        return plan
    known = [row.name for row in plan.rows]
    chosen = {find_row(plan, name).name for text in names for name in _split_names(text, known)}
    return replace(
        plan,
        rows=tuple(row for row in plan.rows if row.name in chosen),
        runs=tuple(run for run in plan.runs if run.row.name in chosen),
    )


def _split_names(text: str, known: Sequence[str]) -> Iterator[str]:
    """Names between commas, at each place the longest that is known."""
    while text:
        fitting = [name for name in known if text == name or text.startswith(f"{name},")]
        name = max(fitting, key=len) if fitting else text.partition(",")[0]
        yield name.strip()
        text = text[len(name) :].removeprefix(",").lstrip()


def _join_stages(levels: Sequence[str]) -> str:
    """One level where all stages agree, else each with its stages: `sliding_window (1-3), local_window (4)`."""
    if len(set(levels)) <= 1:
        return "".join(levels[:1])
    parts, first = [], 1
    for level, group in groupby(levels):
        last = first + len(list(group)) - 1
        parts.append(f"{level} ({first})" if first == last else f"{level} ({first}-{last})")
        first = last + 1
    return ", ".join(parts)


def _to_stated(spec: Spec, ignored: set[str]) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude_defaults=True, exclude=ignored)


def _floors(spec: ExperimentSpec, rows: Mapping[str, RowSpec]) -> Iterator[PlannedRow]:
    """Models without attention on the same images: a table below them measures early optimization."""
    recipe = spec.recipe
    if recipe.floor_width is None:
        return
    sizes: tuple[tuple[str, Spec], ...] = (("linear", LinearSpec()), ("mlp", MlpSpec(width=recipe.floor_width)))
    for name, (backbone, size) in zip(FLOORS, sizes, strict=True):
        if name in rows:
            raise error_at(spec, "the name of a floor of the recipe; choose another", "rows", name)
        yield PlannedRow(name, Cell(backbone, size, (), (), recipe.data, recipe.training), is_floor=True)


def _make_cell(spec: ExperimentSpec, name: str, row: RowSpec) -> Cell:
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
        raise _error_in(spec, name, str(error)) from None
    _check_pairs(spec, name, attention, data.image_size // sizes.patch_size)
    cell = Cell(sizes.family, sizes, attention, num_heads, data, _get_training(spec, name, row, sizes, data))
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
            raise _error_in(spec, name, f"stage {stage}: {error}") from None


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
            raise _error_in(spec, name, f"{message} of query and key, more than {MAX_PAIRS:,}")


def _get_data(spec: ExperimentSpec, row: RowSpec) -> DataSpec:
    """The recipe's data, in the row's own image size where it states one."""
    data = spec.recipe.data
    return data if row.image_size is None else data.model_copy(update={"image_size": row.image_size})


def _get_training(spec: ExperimentSpec, name: str, row: RowSpec, sizes: BackboneSpec, data: DataSpec) -> TrainingSpec:
    """The recipe's training of a row's backbone; token labels need a head over all tokens, and as many tokens."""
    recipe, backbone = spec.recipe, row.backbone or spec.cell.backbone
    training = recipe.training_of.get(backbone, recipe.training)
    grid = sizes.token_grid(data.image_size)
    if training.token_labels is not None and training.token_labels.grid != grid:
        has = "has no head over its tokens (use_aux_head)" if grid is None else f"has {grid} tokens a side"
        message = f"token_labels.grid is {training.token_labels.grid}, but backbone {backbone!r} {has}"
        raise _error_in(spec, name, f"recipe {recipe.name!r}: {message}")
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
        raise _error_in(spec, name, f"recipe {spec.recipe.name!r}: {error}") from None
    return sizes


def _replace_sizes(
    spec: ExperimentSpec, sizes: BackboneSpec, stated: Mapping[str, Mapping[str, Any]], place: tuple[str, ...]
) -> BackboneSpec:
    """The sizes with those that are stated for this recipe, checked like a recipe's own."""
    for recipe in _list_recipes(spec):
        sizes = _change_sizes(spec, sizes, stated.get(recipe.name, {}), (*place, "sizes", recipe.name))
    return sizes


def _change_sizes(
    spec: ExperimentSpec, sizes: BackboneSpec, changes: Mapping[str, Any], place: tuple[str, ...]
) -> BackboneSpec:
    """The sizes with some of them replaced."""
    unknown = [key for key in changes if key not in type(sizes).model_fields]
    if unknown:
        raise error_at(spec, unknown_name("size", unknown[0], tuple(type(sizes).model_fields)), *place, unknown[0])
    try:
        return type(sizes).model_validate({**sizes.model_dump(), **changes})
    except ValidationError as error:
        detail = error.errors()[0]
    raise error_at(spec, describe_mistake(detail), *place, *detail["loc"])


def _check_stages(spec: ExperimentSpec, name: str, row: RowSpec, sizes: BackboneSpec) -> None:
    """What a row states for some stages must be possible in every one of them."""
    num_stages = len(sizes.num_heads)
    for selector in row.stages:
        if isinstance(selector, int) and selector > num_stages:
            raise _error_in(spec, name, f"the backbone has stages 1 to {num_stages}", "stages", selector)
        named = {stage for stage in range(1, num_stages + 1) if selector in _selectors(stage, num_stages)}
        fixed = sorted(named - set(sizes.operator_stages))
        if fixed:
            possible = ", ".join(map(str, sizes.operator_stages))
            message = (
                f"the attention of stage {', '.join(map(str, fixed))} of a {sizes.family} cannot be replaced; "
                f"stages that can: {possible}"
            )
            raise _error_in(spec, name, message, "stages", selector)


def _selectors(stage: int, num_stages: int) -> tuple[int | str, ...]:
    """The keys of `stages` that mean a stage (from 1), the more specific later."""
    return "all", "last" if stage == num_stages else "not_last", stage


def _layers(spec: ExperimentSpec, row: RowSpec, stage: int, num_stages: int) -> list[OperatorSpec]:
    """What a stage (from 0) inherits, the more specific later.

    That is the cell, the row, the row `under` this recipe (before that, under the one that it starts from), and of
    `stages`: `all`, `not_last` or `last`, its number.
    """
    under = [row.under[recipe.name] for recipe in _list_recipes(spec) if recipe.name in row.under]
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
