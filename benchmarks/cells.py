"""Benchmark results as rows of text, for Markdown and the terminal."""

from collections.abc import Iterable, Sequence

from tabulate import tabulate

from benchmarks.goals import Judgement, Ratio, Sense
from benchmarks.result import Result, to_median
from harness.text import NOTHING

LEFT_ALIGNED = ("goal", "shape", "case", "verdict", "note")
MIB = 2**20

Rows = Sequence[dict[str, str]]


def to_grid(rows: Rows, form: str) -> str:
    """A table in one of tabulate's forms."""
    align = ["left" if name in LEFT_ALIGNED else "right" for name in rows[0]] if rows else None
    return tabulate(rows, headers="keys", tablefmt=form, disable_numparse=True, colalign=align)


def to_goal_row(judgement: Judgement) -> dict[str, str]:
    """One goal on one shape."""
    return {
        "goal": judgement.goal,
        "shape": judgement.shape or NOTHING,
        "measured": _show_measured(judgement.ratio),
        "must": _show_bound(judgement.sense, judgement.bounds.must),
        "aim": _show_bound(judgement.sense, judgement.bounds.aim),
        "verdict": judgement.verdict.value,
        "note": judgement.ratio.note,
    }


def _show_measured(ratio: Ratio) -> str:
    if ratio.value is None:
        return NOTHING
    if ratio.low is None or ratio.high is None:
        return _show_ratio(ratio.value)
    return f"{_show_ratio(ratio.value)} [{_show_ratio(ratio.low)}, {_show_ratio(ratio.high)}]"


def _show_bound(sense: Sense, bound: float | None) -> str:
    return NOTHING if bound is None else f"{sense.value} {_show_ratio(bound)}"


def _show_ratio(value: float) -> str:
    """Three digits; a small part as a fraction of one: `1/60`."""
    if 0 < value < 0.1:
        return f"1/{1 / value:.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def to_case_rows(results: Iterable[Result], device: str) -> list[dict[str, str]]:
    """Every case, on the clock that counts on the device."""
    return [_to_case_row(result, "cpu" if device == "cpu" else "wall") for result in results]


def _to_case_row(result: Result, clock: str) -> dict[str, str]:
    probe = result.probe
    trains = probe is not None and probe.trains
    return {
        "case": result.case.id,
        "n": str(result.rounds),
        "forward, ms": _show_ms(to_median(result.forward, clock)),
        "f + b, ms": _show_ms(to_median(result.train, clock)),
        "wall, ms": _show_ms(to_median(result.train, "wall")),
        "GFLOP/s": _show_speed(result, clock),
        "saved, MiB": _show_mib(probe.saved if probe and trains else None),
        "beyond inputs": _show_mib(probe.saved_beyond_inputs if probe and trains else None),
        "peak, MiB": _show_mib(probe.peak_growth if probe else None),
    }


def _show_ms(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    return f"{1e3 * seconds:.3g}" if seconds < 0.1 else f"{1e3 * seconds:,.0f}"


def _show_speed(result: Result, clock: str) -> str:
    seconds, probe = to_median(result.train, clock), result.probe
    if seconds is None or probe is None or probe.multiply_adds is None:
        return NOTHING
    return f"{6 * probe.multiply_adds / seconds / 1e9:.3g}"


def _show_mib(size: int | None) -> str:
    if size is None:
        return NOTHING
    return f"{size / MIB:.1f}" if size < 100 * MIB else f"{size / MIB:,.0f}"
