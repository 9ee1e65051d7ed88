"""`harness plan`: every cell of an experiment, what it costs, what its stages see, what is done."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tabulate import tabulate

from harness.build import StageInfo, describe_stages
from harness.commands.forecast import GPU, forecast_memory, name_kernels
from harness.plan import Plan, PlannedRow
from harness.record import RunStatus
from harness.run.cell import measure_cost
from harness.run.ledger import Entry, Standing
from harness.table.display import count_noun
from harness.table.training import to_training_notes
from paradigms.config import NEIGHBORHOOD_FACTS


def describe_plan(plan: Plan, entries: Sequence[Entry]) -> str:
    """What `harness run` would do, as text for a terminal."""
    stages = {row.name: describe_stages(row.cell) for row in plan.rows}
    parts = [
        _list_cells(plan, entries),
        *(f"skipped: {row.name}: {row.reason}" for row in plan.skipped),
        *to_training_notes(plan),
        *_explain_memory(plan),
        _list_stages(stages),
        *_warn_of_global_stages(stages),
        _count_runs(entries),
    ]
    return "\n\n".join(parts)


def _list_cells(plan: Plan, entries: Sequence[Entry]) -> str:
    num_images = plan.spec.recipe.device_batch_size
    memory = [] if num_images is None else [f"GB at {num_images}"]
    seeds = (f"seed {seed}" for seed in range(plan.spec.seeds))
    rows = [_to_cell(row, num_images, [entry for entry in entries if entry.run.row == row]) for row in plan.rows]
    return tabulate(
        rows,
        ["row", "cell", "params", "multiply-adds", *memory, *seeds],
        colalign=("left", "left", "right", "right", *("right" for _ in memory)),
        disable_numparse=True,
    )


def _to_cell(row: PlannedRow, num_images: int | None, entries: Iterable[Entry]) -> list[str]:
    cost = measure_cost(row.cell)
    memory = [] if num_images is None else [f"{forecast_memory(row.cell, num_images=num_images).total / 1e9:.1f}"]
    states = [_to_state(entry) for entry in sorted(entries, key=lambda entry: entry.run.seed)]
    return [row.name, row.cell.id, f"{cost['params']:,.0f}", f"{cost['macs']:,.0f}", *memory, *states]


def _explain_memory(plan: Plan) -> Iterator[str]:
    num_images = plan.spec.recipe.device_batch_size
    if num_images is not None:
        yield (
            f"GB at {num_images}: the memory (10⁹ bytes) that a training step of {num_images} images should need on a "
            f"GPU,\nby the kernels {name_kernels(GPU)!r} where a row names none; CUDA's context and the allocator's "
            "rounding come on top"
        )


def _to_state(entry: Entry) -> str:
    """`done`, `stale`, `to do`; what is not simply `ok` is said."""
    if entry.record is None or entry.record.status == RunStatus.OK:
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
    shifts = ", ".join("off" if shift == (0, 0) else _to_size(shift) for shift in info.shifts)
    inside = ", ".join(f"{100 * part:.1f} %" for part in info.inside)
    seen = f"{_to_symbol(info.neighborhood)} {_to_size(info.size)} {info.neighborhood}"
    return [str(info.stage), _to_size(info.map_size), seen + (", global" if info.is_global else ""), shifts, inside]


def _to_symbol(neighborhood: str) -> str:
    return NEIGHBORHOOD_FACTS[neighborhood].symbol


def _to_size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


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
            f"{_to_size(size)} map; what is compared there is not local attention"
        )


def _count_runs(entries: Sequence[Entry]) -> str:
    counts = Counter(entry.standing for entry in entries)
    states = ", ".join(f"{counts[standing]} {standing.value}" for standing in Standing if counts[standing])
    missing = {(entry.run.row.cell.id, entry.run.seed) for entry in entries if entry.standing != Standing.DONE}
    return f"{count_noun(len(entries), 'run')}: {states}; `harness run` would train {len(missing)}"
