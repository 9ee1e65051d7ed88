"""Benchmark results as a DataFrame of plain numbers, for csv; `COLUMNS` gives the columns in order."""

from typing import Any

import pandas as pd

from benchmarks.result import Result, to_median, to_spread
from benchmarks.session import Report

FACTS = (
    *("device", "cores", "isa", "dtype", "system"),
    *("code_digest", "commit", "dirty", "python", "torch", "torchvision", "timm", "numpy", "date"),
)

PASSES = ("forward", "train")

COLUMNS = (
    *("case", "operator", "backend", "variant", "shape", "threads", "rounds"),
    *(f"{name}_{clock}_{what}" for name in PASSES for clock in ("cpu", "wall") for what in ("ms", "iqr_ms")),
    *("saved_bytes", "saved_beyond_inputs_bytes", "peak_growth_bytes", "input_bytes", "output_bytes"),
    "multiply_adds",
    *(f"{name}_{what}" for name in PASSES for what in ("gflops", "flop_per_byte")),
    *("note", "foreign_cores", "loaded"),
    *FACTS,
)


def make_frame(report: Report) -> pd.DataFrame:
    """One row a case, those that do not run included, with the reason."""
    facts = {name: report.machine.facts[name] for name in FACTS}
    load = {"foreign_cores": round(report.machine.foreign, 3), "loaded": report.loaded}
    rows = [{**_to_row(result, report.setting.device), **load, **facts} for result in report.results]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _to_row(result: Result, device: str) -> dict[str, Any]:
    case, probe = result.case, result.probe
    row: dict[str, Any] = {
        "case": case.id,
        "operator": case.operator,
        "backend": case.backend,
        "variant": case.variant,
        "shape": case.shape.name,
        "threads": case.threads,
        "rounds": result.rounds,
        "note": result.note,
    }
    if probe is None:
        return row
    row |= {
        "saved_bytes": probe.saved if probe.trains else None,
        "saved_beyond_inputs_bytes": probe.saved_beyond_inputs if probe.trains else None,
        "peak_growth_bytes": probe.peak_growth,
        "input_bytes": probe.inputs,
        "output_bytes": probe.outputs,
        "multiply_adds": probe.multiply_adds,
    }
    return row | _to_times(result) | _to_speeds(result, device)


def _to_times(result: Result) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in PASSES:
        laps = getattr(result, name)
        for clock in ("cpu", "wall"):
            for what, summarize in (("ms", to_median), ("iqr_ms", to_spread)):
                seconds = summarize(laps, clock)
                found[f"{name}_{clock}_{what}"] = None if seconds is None else 1e3 * seconds
    return found


def _to_speeds(result: Result, device: str) -> dict[str, float | None]:
    """GFLOP per second of the multiply-adds that the definition needs, and FLOP per byte if each byte moved once.

    A backward pass is counted as twice the forward pass. Forward moves inputs and output; forward and backward move the
    inputs twice, their gradients, the output and its gradient.
    """
    probe, clock = result.probe, "cpu" if device == "cpu" else "wall"
    if probe is None or probe.multiply_adds is None:
        return {}
    moved = {"forward": probe.inputs + probe.outputs, "train": 3 * probe.inputs + 2 * probe.outputs}
    found: dict[str, float | None] = {}
    for name, factor in (("forward", 1), ("train", 3)):
        seconds = to_median(getattr(result, name), clock)
        flop = 2 * factor * probe.multiply_adds
        found[f"{name}_gflops"] = flop / seconds / 1e9 if seconds else None
        found[f"{name}_flop_per_byte"] = flop / moved[name] if seconds else None
    return found
