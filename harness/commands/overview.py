"""`harness plan`: every cell of an experiment, its cost, its stages and its progress."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from harness.attestation import Standing
from harness.cell import Cell
from harness.commands.progress import describe_preparation
from harness.commands.published import describe_published
from harness.division import Division, divide_batch
from harness.execution.ledger import Entry, list_missing
from harness.execution.rehearsals import forecast
from harness.initial import FromFile, FromRun
from harness.plan import Plan, PlannedRow
from harness.record import RunStatus
from harness.report.training import to_training_notes
from harness.shapes import Shape
from harness.spec import RecipeSpec
from harness.stages import StageInfo
from harness.text import NOTHING, count_noun, write_size
from harness.trace import Rehearsal, is_short
from paradigms.facts import NEIGHBORHOODS


def describe_plan(
    plan: Plan, entries: Sequence[Entry], rehearsals: Mapping[str, Rehearsal], shapes: Mapping[str, Shape]
) -> str:
    """What `harness run` would do, as text for a terminal.

    `rehearsals` and `shapes` are those of the present code, by cell id.
    """
    if not plan.rows:
        return "\n".join([f"recipe {plan.spec.recipe.name} trains no row of this experiment", *_list_skipped(plan)])
    stages = {row.name: shapes[row.cell.id].stages for row in plan.rows}
    parts = [
        _list_cells(plan, entries, shapes),
        *_list_initial(plan),
        *_list_solutions(plan),
        *_explain_placebo(plan),
        *_list_skipped(plan),
        *to_training_notes(plan),
        *_explain_memory(plan),
        *_explain_division(plan),
        _list_stages(stages),
        *_warn_of_global_stages(stages),
        "\n".join([_count_runs(entries), *_list_reasons(entries), *_forecast(plan, entries, rehearsals, shapes)]),
    ]
    return "\n\n".join(parts)


def to_plain(
    plan: Plan, entries: Sequence[Entry], rehearsals: Mapping[str, Rehearsal], shapes: Mapping[str, Shape]
) -> dict[str, Any]:
    """The same as plain values, for `--json`."""
    spec, to_do = plan.spec, list_missing(entries)
    return {
        "experiment": spec.name,
        "title": spec.title,
        "recipe": spec.recipe.name,
        "overrides": list(spec.overrides),
        "rows": [_to_plain_row(row, shapes[row.cell.id], spec.recipe, entries) for row in plan.rows],
        "skipped": [{"row": row.name, "reason": row.reason} for row in plan.skipped],
        "counts": {standing.value: count for standing, count in _count(entries).items()},
        "to_train": len(list_missing(entries)),
        "forecast": next(map(asdict, forecast(to_do, rehearsals, entries, workers=spec.recipe.workers)), None),
    }


def _to_plain_row(row: PlannedRow, shape: Shape, recipe: RecipeSpec, entries: Iterable[Entry]) -> dict[str, Any]:
    runs = [
        {
            "seed": entry.run.seed,
            "standing": entry.standing.value,
            "reason": entry.reason,
            "epoch": None if entry.checkpoint is None else entry.checkpoint.epoch,
            "status": None if entry.record is None else entry.record.status.value,
            "run_id": None if entry.record is None else entry.record.run_id,
        }
        for entry in entries
        if entry.run.row == row
    ]
    return {
        "row": row.name,
        "cell_id": row.cell.id,
        "is_floor": row.is_floor,
        "is_placebo": row.is_placebo,
        "solution": None if row.solution is None else asdict(row.solution),
        "levels": row.cell.factors(),
        "division": asdict(_divide(row.cell.training.batch_size, recipe, num_gpus=row.cell.training.batch_size)),
        **asdict(shape),
        "runs": runs,
    }


def _list_cells(plan: Plan, entries: Sequence[Entry], shapes: Mapping[str, Shape]) -> str:
    num_images = plan.spec.recipe.device_batch_size
    memory = [] if num_images is None else [f"GB at {num_images}"]
    sizes = [write_size((row.cell.data.image_size,) * 2) for row in plan.rows]
    images = ["image"] if len(set(sizes)) > 1 else []
    seeds = (f"seed {seed}" for seed in range(plan.spec.seeds))
    rows = [
        _to_cell(row, shapes[row.cell.id], num_images, [entry for entry in entries if entry.run.row == row])
        for row in plan.rows
    ]
    if images:
        rows = [[name, cell, size, *rest] for (name, cell, *rest), size in zip(rows, sizes, strict=True)]
    return tabulate(
        rows,
        ["row", "cell", *images, "params", "multiply-adds", *memory, *seeds],
        colalign=("left", "left", *("right" for _ in (*images, "params", "multiply-adds", *memory))),
        disable_numparse=True,
    )


def _to_cell(row: PlannedRow, shape: Shape, num_images: int | None, entries: Iterable[Entry]) -> list[str]:
    memory = [] if num_images is None else [_show_memory(row.cell, num_images)]
    states = [_to_state(entry) for entry in sorted(entries, key=lambda entry: entry.run.seed)]
    return [row.name, row.cell.id, f"{shape.params:,.0f}", f"{shape.macs:,.0f}", *memory, *states]


def _show_memory(cell: Cell, num_images: int) -> str:
    """The forecast of memory in GB."""
    from harness.commands.forecast import can_forecast, forecast_memory

    return f"{forecast_memory(cell, num_images=num_images).total / 1e9:.1f}" if can_forecast() else NOTHING


def _list_skipped(plan: Plan) -> Iterator[str]:
    """A line for each reason, with its rows."""
    for reason in dict.fromkeys(row.reason for row in plan.skipped):
        names = ", ".join(row.name for row in plan.skipped if row.reason == reason)
        yield f"skipped: {names}: {reason}"


def _list_initial(plan: Plan) -> Iterator[str]:
    """The initial weights of rows that are not trained from scratch, one line per row."""
    lines = []
    for row in plan.rows:
        match row.cell.init_from:
            case FromRun() as source:
                lines.append(f"{row.name} starts from row {source.row} under recipe {source.recipe}, {source.cell_id}")
            case FromFile() as file:
                lines.append(f"{row.name} starts from file {file.path}, sha256 {file.digest[:12]}")
    if lines:
        yield "\n".join(lines)


def _list_solutions(plan: Plan) -> Iterator[str]:
    lines = [f"{row.name}: {row.solution.describe()}" for row in plan.rows if row.solution is not None]
    if lines:
        yield "\n".join(["solved:", *(f"  {line}" for line in lines)])


def _explain_placebo(plan: Plan) -> Iterator[str]:
    if plan.placebo is not None:
        yield (
            f"{plan.placebo.name} is the placebo: the baseline, {plan.spec.baseline}, with seeds from "
            f"{plan.placebo.first_seed} on"
        )


def _explain_memory(plan: Plan) -> Iterator[str]:
    num_images = plan.spec.recipe.device_batch_size
    if num_images is not None:
        from harness.commands.forecast import GPU, name_kernels

        yield (
            f"GB at {num_images}: the memory (10⁹ bytes) that a training step of {num_images} images should need on a "
            f"GPU,\nby the kernels {name_kernels(GPU)!r} where a row names none; CUDA's context and the allocator's "
            "rounding are not included"
        )


def _explain_division(plan: Plan) -> Iterator[str]:
    """How many processes a run has where the recipe says something about it."""
    recipe = plan.spec.recipe
    if recipe.processes is not None or recipe.device_batch_size is not None:
        sizes = sorted({row.cell.training.batch_size for row in plan.rows})
        yield "\n".join(f"a step of {size:,} images: {_describe_division(size, recipe)}" for size in sizes)


def _describe_division(batch_size: int, recipe: RecipeSpec) -> str:
    most, one = (_divide(batch_size, recipe, num_gpus=num_gpus) for num_gpus in (batch_size, 1))
    if recipe.processes is not None:
        return f"{_describe_accumulation(most)} in each of {most.processes} processes"
    return f"{most.processes} processes if there are as many GPUs; on one GPU, {_describe_accumulation(one)}"


def _describe_accumulation(division: Division) -> str:
    return "1 micro-batch" if division.accumulation == 1 else f"{division.accumulation} micro-batches"


def _divide(batch_size: int, recipe: RecipeSpec, *, num_gpus: int) -> Division:
    return divide_batch(
        batch_size, device_batch_size=recipe.device_batch_size, processes=recipe.processes, num_gpus=num_gpus
    )


def _to_state(entry: Entry) -> str:
    """`done`, `stale`, `to do`, ...; with the status of the run if it is not `ok`."""
    if entry.checkpoint is not None:
        return f"{entry.standing.value} at epoch {entry.checkpoint.epoch}"
    if entry.record is None or entry.record.status == RunStatus.OK or entry.standing == Standing.FAILED:
        return entry.standing.value
    return f"{entry.standing.value} ({entry.record.status.value})"


def _list_stages(stages: Mapping[str, Sequence[StageInfo]]) -> str:
    """One line per stage and neighborhood, with the rows that have it."""
    rows: dict[StageInfo, list[str]] = {}
    for name, infos in stages.items():
        for info in infos:
            rows.setdefault(info, []).append(name)
    ordered = sorted(rows, key=lambda info: info.stage)
    headers = ["stage", "map", "neighborhood", "shift", "taps inside", "rows"]
    lines = [[*_to_stage(info), _name_rows(rows[info], stages)] for info in ordered]
    return tabulate(lines, headers, disable_numparse=True)


def _to_stage(info: StageInfo) -> list[str]:
    shifts = ", ".join("off" if shift == (0, 0) else write_size(shift) for shift in info.shifts)
    inside = ", ".join(f"{100 * part:.1f} %" for part in info.inside)
    seen = f"{_to_symbol(info.neighborhood)} {write_size(info.size)} {info.neighborhood}"
    return [str(info.stage), write_size(info.map_size), seen + (", global" if info.is_global else ""), shifts, inside]


def _to_symbol(neighborhood: str) -> str:
    return NEIGHBORHOODS[neighborhood].symbol


def _name_rows(names: Sequence[str], stages: Mapping[str, Sequence[StageInfo]]) -> str:
    with_stages = [name for name, infos in stages.items() if infos]
    return "all" if list(names) == with_stages else ", ".join(names)


def _warn_of_global_stages(stages: Mapping[str, Sequence[StageInfo]]) -> Iterator[str]:
    """Warn of neighborhoods that contain the whole map, and are therefore not local."""
    found = {
        (info.stage, info.neighborhood, info.map_size) for infos in stages.values() for info in infos if info.is_global
    }
    for stage, neighborhood, size in sorted(found):
        yield (
            f"warning: stage {stage}: {_to_symbol(neighborhood)} is global, every query sees the whole "
            f"{write_size(size)} map; this stage does not compare local attention"
        )


def _count_runs(entries: Sequence[Entry]) -> str:
    states = ", ".join(f"{count} {standing.value}" for standing, count in _count(entries).items() if count)
    undecided = any(entry.standing == Standing.UNDECIDED for entry in entries)
    fewer = ", or fewer: rehearsals show whether runs of older code are valid" if undecided else ""
    return f"{count_noun(len(entries), 'run')}: {states}; `harness run` would train {len(list_missing(entries))}{fewer}"


def _count(entries: Iterable[Entry]) -> dict[Standing, int]:
    counts = Counter(entry.standing for entry in entries)
    return {standing: counts[standing] for standing in Standing}


def _list_reasons(entries: Sequence[Entry]) -> Iterator[str]:
    """Results that only the record file has, and why results of older code are valid or cannot be attested."""
    unstored = {(entry.run.row.cell.id, entry.run.seed) for entry in entries if _is_only_in_file(entry)}
    if unstored:
        runs = count_noun(len(unstored), "run")
        yield f"{runs} only in the record file, not in the store; `harness run` imports them"
    if any(entry.standing == Standing.ATTESTED for entry in entries):
        yield "attested: code has changed since, and a rehearsal under today's code computed the same, bit for bit"
    unattested = (entry.reason for entry in entries if entry.standing == Standing.UNATTESTED)
    for reason, count in Counter(unattested).items():
        yield f"unattested: code has changed since {count_noun(count, 'run')}, {reason}; `--retrain` trains them again"


def _is_only_in_file(entry: Entry) -> bool:
    """Whether the store lacks a record: only stored records have a run id."""
    return entry.record is not None and entry.record.run_id is None


def _forecast(
    plan: Plan, entries: Sequence[Entry], rehearsals: Mapping[str, Rehearsal], shapes: Mapping[str, Shape]
) -> Iterator[str]:
    """The forecast of the training time, if every missing run has a rehearsal."""
    runs = list_missing(entries)
    if all(is_short(run.row.cell) for run in runs):
        return
    found = list(forecast(runs, rehearsals, entries, workers=plan.spec.recipe.workers))
    if found:
        yield from describe_preparation(found[0])
        return
    yield "`harness rehearse` forecasts time and memory"
    yield from describe_published(plan, runs, shapes)
