"""`harness plan`: every cell of an experiment, its cost, its stages and its progress."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from harness.attestation import Standing
from harness.build import StageInfo, describe_stages
from harness.cell import Cell
from harness.commands.forecast import GPU, can_forecast, forecast_memory, name_kernels
from harness.commands.progress import describe_preparation
from harness.costs import measure_cost
from harness.execution.ledger import Entry, list_missing
from harness.execution.rehearsals import forecast
from harness.initial import FromFile, FromRun
from harness.plan import Plan, PlannedRow
from harness.record import RunStatus
from harness.report.training import to_training_notes
from harness.text import NOTHING, count_noun, write_size
from harness.trace import Rehearsal, is_short
from paradigms.facts import NEIGHBORHOODS


def describe_plan(plan: Plan, entries: Sequence[Entry], rehearsals: Mapping[str, Rehearsal]) -> str:
    """What `harness run` would do, as text for a terminal; `rehearsals` are those of today's code, by cell id."""
    if not plan.rows:
        return "\n".join([f"recipe {plan.spec.recipe.name} trains no row of this experiment", *_list_skipped(plan)])
    stages = {row.name: describe_stages(row.cell) for row in plan.rows}
    parts = [
        _list_cells(plan, entries),
        *_list_initial(plan),
        *_list_solutions(plan),
        *_explain_placebo(plan),
        *_list_skipped(plan),
        *to_training_notes(plan),
        *_explain_memory(plan),
        _list_stages(stages),
        *_warn_of_global_stages(stages),
        "\n".join([_count_runs(entries), *_list_reasons(entries), *_forecast(plan, entries, rehearsals)]),
    ]
    return "\n\n".join(parts)


def to_plain(plan: Plan, entries: Sequence[Entry], rehearsals: Mapping[str, Rehearsal]) -> dict[str, Any]:
    """The same as plain values, for `--json`."""
    spec, to_do = plan.spec, list_missing(entries)
    return {
        "experiment": spec.name,
        "title": spec.title,
        "recipe": spec.recipe.name,
        "overrides": list(spec.overrides),
        "rows": [_to_plain_row(row, entries) for row in plan.rows],
        "skipped": [{"row": row.name, "reason": row.reason} for row in plan.skipped],
        "counts": {standing.value: count for standing, count in _count(entries).items()},
        "to_train": len(list_missing(entries)),
        "forecast": next(map(asdict, forecast(to_do, rehearsals, entries, workers=spec.recipe.workers)), None),
    }


def _to_plain_row(row: PlannedRow, entries: Iterable[Entry]) -> dict[str, Any]:
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
        **measure_cost(row.cell),
        "stages": [asdict(info) for info in describe_stages(row.cell)],
        "runs": runs,
    }


def _list_cells(plan: Plan, entries: Sequence[Entry]) -> str:
    num_images = plan.spec.recipe.device_batch_size
    memory = [] if num_images is None else [f"GB at {num_images}"]
    sizes = [write_size((row.cell.data.image_size,) * 2) for row in plan.rows]
    images = ["image"] if len(set(sizes)) > 1 else []
    seeds = (f"seed {seed}" for seed in range(plan.spec.seeds))
    rows = [_to_cell(row, num_images, [entry for entry in entries if entry.run.row == row]) for row in plan.rows]
    if images:
        rows = [[name, cell, size, *rest] for (name, cell, *rest), size in zip(rows, sizes, strict=True)]
    return tabulate(
        rows,
        ["row", "cell", *images, "params", "multiply-adds", *memory, *seeds],
        colalign=("left", "left", *("right" for _ in (*images, "params", "multiply-adds", *memory))),
        disable_numparse=True,
    )


def _to_cell(row: PlannedRow, num_images: int | None, entries: Iterable[Entry]) -> list[str]:
    cost = measure_cost(row.cell)
    memory = [] if num_images is None else [_show_memory(row.cell, num_images)]
    states = [_to_state(entry) for entry in sorted(entries, key=lambda entry: entry.run.seed)]
    return [row.name, row.cell.id, f"{cost['params']:,.0f}", f"{cost['macs']:,.0f}", *memory, *states]


def _show_memory(cell: Cell, num_images: int) -> str:
    """In GB."""
    return f"{forecast_memory(cell, num_images=num_images).total / 1e9:.1f}" if can_forecast() else NOTHING


def _list_skipped(plan: Plan) -> Iterator[str]:
    """A line for each reason, with its rows."""
    for reason in dict.fromkeys(row.reason for row in plan.skipped):
        names = ", ".join(row.name for row in plan.skipped if row.reason == reason)
        yield f"skipped: {names}: {reason}"


def _list_initial(plan: Plan) -> Iterator[str]:
    """Where rows start that are not trained from scratch, a line each."""
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
        yield (
            f"GB at {num_images}: the memory (10⁹ bytes) that a training step of {num_images} images should need on a "
            f"GPU,\nby the kernels {name_kernels(GPU)!r} where a row names none; CUDA's context and the allocator's "
            "rounding are not included"
        )


def _to_state(entry: Entry) -> str:
    """`done`, `stale`, `to do`; what is not simply `ok` is said."""
    if entry.checkpoint is not None:
        return f"{entry.standing.value} at epoch {entry.checkpoint.epoch}"
    if entry.record is None or entry.record.status == RunStatus.OK or entry.standing == Standing.FAILED:
        return entry.standing.value
    return f"{entry.standing.value} ({entry.record.status.value})"


def _list_stages(stages: Mapping[str, Sequence[StageInfo]]) -> str:
    """One line a stage and neighborhood, with the rows that have it."""
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
    """A neighborhood that holds the whole map is not local."""
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
    """Why results of older code stand, or cannot be attested."""
    if any(entry.standing == Standing.ATTESTED for entry in entries):
        yield "attested: code has changed since, and a rehearsal under today's code computed the same, bit for bit"
    unattested = (entry.reason for entry in entries if entry.standing == Standing.UNATTESTED)
    for reason, count in Counter(unattested).items():
        yield f"unattested: code has changed since {count_noun(count, 'run')}, {reason}; `--retrain` trains them again"


def _forecast(plan: Plan, entries: Sequence[Entry], rehearsals: Mapping[str, Rehearsal]) -> Iterator[str]:
    """The time that training takes, where every run that is missing has a rehearsal."""
    runs = list_missing(entries)
    if all(is_short(run.row.cell) for run in runs):
        return
    found = list(forecast(runs, rehearsals, entries, workers=plan.spec.recipe.workers))
    yield from describe_preparation(found[0]) if found else ["`harness rehearse` forecasts time and memory"]
