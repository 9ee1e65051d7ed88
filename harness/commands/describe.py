"""`harness describe`: equation, source and parts of an operator, and the cost of a model by stage."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch
from tabulate import tabulate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.build import build_model, describe_stages
from harness.cell import Cell
from harness.commands.forecast import GPU, can_forecast, forecast_memory, name_kernels
from harness.costs import measure_cost
from harness.errors import SpecError
from harness.plan import PlannedRow, find_row, make_plan
from harness.reading import load_recipe, load_spec
from harness.spec import BackboneSpec, ExperimentSpec, RecipeSpec, RowSpec
from harness.stages import StageInfo
from harness.text import count_noun, write_size
from paradigms.config import CORE, AttentionConfig
from paradigms.facts import FIELDS, NEIGHBORHOODS, ROOMS, unknown_name
from paradigms.presets import PRESETS, write_equation

PRESET_RECIPE = "imagenet"
"""The recipe whose sizes are used to describe a preset by default: those of the paper."""

_NO_LEVELS = frozenset(
    {"window_size", "shift_size", "kernel_size", "dilation", "chunk_size", "hadamard_size", "initialization", "backend"}
)
"""Fields in which a row may differ from a preset and still count as this preset."""

_COLUMNS = 82
"""Width of the text beside the name of a part, so that a line has at most 100 columns."""

_LEGEND = """\
multiply-adds: of one image; attention: those of the operator with its projections
stages: their blocks alone; rest: the modules before, between and after them"""


@dataclass(frozen=True)
class StageCost:
    """The cost of the blocks of one stage; multiply-adds are per image."""

    blocks: int = 0
    params: int = 0
    macs: int = 0
    attention_macs: int = 0


def find_described(name: str, row: str | None, *, recipe: str | None) -> tuple[PlannedRow, RecipeSpec]:
    """The row of the experiment `name`, or, if `row` is None, a model with the preset `name` as operator.

    Raises:
        SpecError: there is no such preset, experiment or row; the message lists the known names.
    """
    if row is None and name in PRESETS:
        spec = _make_experiment(name, recipe or PRESET_RECIPE)
    elif row is None and not _is_experiment(name):
        hint = "for a row, give the experiment and the row's name"
        raise SpecError(f"{unknown_name('preset', name, tuple(PRESETS))}; {hint}")
    else:
        spec = load_spec(Path(name), recipe=recipe)
    plan = make_plan(spec)
    if row is None and name not in PRESETS:
        known = ", ".join(found.name for found in plan.rows)
        raise SpecError(f"an experiment has rows; name one of them: {known}", path=spec.path)
    return find_row(plan, name if row is None else row), spec.recipe


def _is_experiment(name: str) -> bool:
    try:
        load_spec(Path(name))
    except SpecError:
        return Path(name).exists()
    return True


def _make_experiment(preset: str, recipe: str) -> ExperimentSpec:
    row = RowSpec(preset=preset)
    from_scratch = load_recipe(recipe).model_copy(update={"init_recipe": None})
    return ExperimentSpec(name=preset, title=preset, recipe=from_scratch, baseline=preset, rows={preset: row})


def describe_row(row: PlannedRow, recipe: RecipeSpec) -> str:
    """The operators and the cost of a row, as text for a terminal."""
    cell = row.cell
    parts = [
        f"{row.name}: {cell.backbone} under recipe {recipe.name} ({recipe.summary})",
        *([] if row.solution is None else [f"solved: {row.solution.describe()}"]),
        *_describe_operators(row),
        _list_stages(cell),
        *_describe_memory(cell, recipe.device_batch_size),
    ]
    return "\n\n".join(parts)


def _describe_operators(row: PlannedRow) -> Iterator[str]:
    """One paragraph for consecutive stages with the same operator."""
    numbered = enumerate(row.cell.attention, start=1)
    groups = [
        (config, [stage for stage, _ in group]) for config, group in groupby(numbered, key=lambda entry: entry[1])
    ]
    for config, stages in groups:
        where = f"stage {stages[0]}" if len(stages) == 1 else f"stages {stages[0]} to {stages[-1]}"
        if config is None:
            yield f"{where}: the attention of timm's model"
        else:
            lines = tabulate(
                _list_parts(config, row.name), tablefmt="plain", disable_numparse=True, maxcolwidths=[None, _COLUMNS]
            )
            yield lines if len(groups) == 1 else f"{where}:\n{lines}"


def _list_parts(config: AttentionConfig, name: str) -> Iterator[list[str]]:
    """The equation, its source, and every level and field that has an effect."""
    preset = _find_preset(config, name)
    yield ["equation", write_equation(config) if preset is None else PRESETS[preset].equation]
    yield ["source", "no preset" if preset is None else f"{PRESETS[preset].source} (preset {preset})"]
    for factor, room in ROOMS.items():
        levels = getattr(config, factor)
        names = (levels,) if isinstance(levels, str) else levels
        read = frozenset().union(*(room[level].fields for level in names))
        yield [factor, ", ".join([" + ".join(names), *_list_fields(config, read)])]
    stated = {**config.to_dict(), "border": config.outside_rule}
    yield from ([name, stated[name]] for name in CORE if name not in ROOMS)


def _find_preset(config: AttentionConfig, name: str) -> str | None:
    """The preset that equals this operator except for sizes and initialization; of several, the one of this name."""
    found = [preset for preset, known in PRESETS.items() if _to_operator(known.config) == _to_operator(config)]
    return name if name in found else next(iter(found), None)


def _to_operator(config: AttentionConfig) -> dict[str, Any]:
    return {name: value for name, value in config.to_canonical().items() if name not in _NO_LEVELS}


def _list_fields(config: AttentionConfig, names: Container[str]) -> list[str]:
    """`name value` of the fields that are set, in the order of their declaration."""
    values = {name: getattr(config, name) for name in FIELDS if name in names}
    return [f"{name} {_to_text(value)}" for name, value in values.items() if value is not None]


def _to_text(value: object) -> str:
    return write_size(value) if isinstance(value, tuple) else str(value)


def _list_stages(cell: Cell) -> str:
    """The cost of each stage that has operators, of the rest of the model, and of all of it."""
    costs, total = measure_stages(cell), measure_cost(cell)
    rows = [_to_line(cell, info, costs[info.stage]) for info in describe_stages(cell)]
    rest = [total[key] - sum(getattr(cost, key) for cost in costs.values()) for key in ("params", "macs")]
    for name, (params, macs) in {"rest": rest, "all": [total["params"], total["macs"]]}.items():
        rows.append([name, *[""] * 5, f"{params:,.0f}", f"{macs:,.0f}", ""])
    headers = ["stage", "blocks", "map", "width", "heads", "sees", "params", "multiply-adds", "attention"]
    table = tabulate(rows, headers, colalign=(*["left"] * 6, *["right"] * 3), disable_numparse=True)
    return f"{table}\n{_LEGEND}" if costs else table


def _to_line(cell: Cell, info: StageInfo, cost: StageCost) -> list[str]:
    width = cast("BackboneSpec", cell.sizes).widths[info.stage - 1]
    seen = f"{NEIGHBORHOODS[info.neighborhood].symbol} {write_size(info.size)}{', global' if info.is_global else ''}"
    shape = [
        str(info.stage),
        str(cost.blocks),
        write_size(info.map_size),
        str(width),
        str(cell.num_heads[info.stage - 1]),
    ]
    return [*shape, seen, f"{cost.params:,}", f"{cost.macs:,}", f"{cost.attention_macs:,}"]


def measure_stages(cell: Cell) -> dict[int, StageCost]:
    """The cost of the blocks of every stage (from 1) that has operators; empty for a floor."""
    if not cell.attention:
        return {}
    model = build_model(cell, replicate=None, device="meta").eval()
    shape = (1, cell.data.channels, cell.data.image_size, cell.data.image_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(shape, device="meta"))
    counts = counter.get_flop_counts()
    paths: dict[nn.Module, str] = {module: path for path, module in model.named_modules()}
    found: dict[int, StageCost] = {}
    for stage, _, operator in cast("Any", model).operators():
        path = paths[operator]
        block = model.get_submodule(path.rpartition(".")[0])
        cost = found.get(stage, StageCost())
        found[stage] = StageCost(
            cost.blocks + 1,
            cost.params + sum(parameter.numel() for parameter in block.parameters()),
            cost.macs + _count_macs(counts, model, paths[block]),
            cost.attention_macs + _count_macs(counts, model, path),
        )
    return found


def _count_macs(counts: Mapping[str, Mapping[Any, int]], model: nn.Module, path: str) -> int:
    return sum(counts.get(f"{type(model).__name__}.{path}", {}).values()) // 2


def _describe_memory(cell: Cell, num_images: int | None) -> Iterator[str]:
    if num_images is not None and not can_forecast():
        yield f"memory: torch {torch.__version__} cannot forecast it for a GPU that is absent"
    elif num_images is not None:
        needed, images = forecast_memory(cell, num_images=num_images).total / 1e9, count_noun(num_images, "image")
        yield f"memory: {needed:.1f} GB for a training step of {images} on a GPU, by the kernels {name_kernels(GPU)!r}"
