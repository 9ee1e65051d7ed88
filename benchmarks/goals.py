"""The goals of the kernels, as data, and the verdict on a measurement."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from benchmarks.result import Result, to_median
from benchmarks.siblings import NEAREST, SIBLINGS


class Verdict(StrEnum):
    """What a measured value says about its goal."""

    MET_AIM = "met aim"
    MET_MUST = "met must"
    UNMET = "unmet"
    NOT_MEASURED = "not measured"
    LOADED = "loaded: not a result"


class Sense(StrEnum):
    """The direction in which values are better."""

    AT_MOST = "≤"
    AT_LEAST = "≥"


MEETS = {Sense.AT_MOST: operator.le, Sense.AT_LEAST: operator.ge}


class Quantity(StrEnum):
    """What of two cases is compared."""

    TRAIN_TIME = "time, forward + backward"
    WALL_TIME = "wall time, forward + backward"
    SAVED = "saved for backward beyond inputs"
    KEPT_NUMBERS = "numbers kept beyond inputs"
    PEAK = "peak memory growth"
    REPORTED = "read from results"


def _count_kept_numbers(result: Result) -> float | None:
    """Float32 numbers for each query and head."""
    if result.probe is None or not result.probe.trains:
        return None
    shape = result.case.shape
    return result.probe.saved_beyond_inputs / (4 * shape.num_queries * shape.heads)


MEASURES: Mapping[Quantity, Callable[[Result], float | None]] = {
    Quantity.TRAIN_TIME: lambda result: to_median(result.train, "cpu"),
    Quantity.WALL_TIME: lambda result: to_median(result.train, "wall"),
    Quantity.SAVED: lambda result: result.probe.saved_beyond_inputs if result.probe and result.probe.trains else None,
    Quantity.KEPT_NUMBERS: _count_kept_numbers,
    Quantity.PEAK: lambda result: result.probe.peak_growth if result.probe else None,
}

CLOCKS = {Quantity.TRAIN_TIME: "cpu", Quantity.WALL_TIME: "wall"}


@dataclass(frozen=True)
class Bounds:
    """What must be reached, and what is aimed at; None: nothing is asked."""

    must: float | None
    aim: float | None


@dataclass(frozen=True)
class Goal:
    """Two cases, what of them is divided, and the bounds on each shape.

    Attributes:
        name: says what is compared, with what.
        numerator: a case's id with `{}` for the shape.
        denominator: likewise; empty: the numerator's value itself.
        bounds: by the shape's name.
        device: where it is measured.
    """

    name: str
    quantity: Quantity
    sense: Sense
    numerator: str
    denominator: str
    bounds: Mapping[str, Bounds]
    device: str = "cpu"


class Ratio(NamedTuple):
    """A measured value, the quartiles of the same round by round, and why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Judgement:
    """One goal on one shape."""

    goal: str
    shape: str
    quantity: Quantity
    sense: Sense
    bounds: Bounds
    ratio: Ratio
    verdict: Verdict


def _both(must: tuple[float, float], aim: tuple[float, float]) -> dict[str, Bounds]:
    return {shape: Bounds(*pair) for shape, pair in zip(("s1", "s3"), zip(must, aim, strict=True), strict=True)}


def _same(must: float | None, aim: float | None) -> dict[str, Bounds]:
    return {shape: Bounds(must, aim) for shape in ("s1", "s3")}


_NET7_N = "net7_n/cpu/{}"
_EAGER_WINDOW = "net7/frozen/{}"
_UNFOLD = "net7_n/unfold/{}"
_SIBLING = {"s1": Bounds(1.5, 1.1)}
_TIME, _WALL = Quantity.TRAIN_TIME, Quantity.WALL_TIME
_LESS, _MORE = Sense.AT_MOST, Sense.AT_LEAST

GOALS = (
    Goal(
        "Net7-N `cpu` / timm's window core (q·k + r^b)",
        _TIME, _LESS, _NET7_N, "window_core/timm/{}", _both((2.1, 2.1), (1.0, 1.0)),
    ),
    Goal("Net7-N `cpu` / eager window Net7", _TIME, _LESS, _NET7_N, _EAGER_WINDOW, _both((1.1, 0.8), (0.5, 0.4))),
    Goal(
        "Net7-N `cpu` / depthwise 7x7",
        _TIME, _LESS, _NET7_N, "depthwise/conv2d/{}", _both((2.5, 2.0), (1.0, 1.0)),
    ),
    Goal("unfold + matmul / Net7-N `cpu`", _TIME, _MORE, _UNFOLD, _NET7_N, _both((40, 30), (80, 60))),
    Goal(
        "Net7-N `torch` / eager window Net7",
        _TIME, _LESS, "net7_n/torch/{}", _EAGER_WINDOW, _both((4, 2.2), (2.5, 1.6)),
    ),
    Goal(
        "saved for backward by Net7-N `cpu` beyond its inputs, of unfold's",
        Quantity.SAVED, _LESS, _NET7_N, _UNFOLD, _same(1 / 60, None),
    ),
    Goal(
        "saved for backward by Net7-N `cpu` beyond its inputs, of eager window Net7's",
        Quantity.SAVED, _LESS, _NET7_N, _EAGER_WINDOW, _same(0.35, None),
    ),
    Goal(
        "the aim of both: numbers kept beyond the inputs, a query and head",
        Quantity.KEPT_NUMBERS, _LESS, _NET7_N, "", _same(None, 1.0),
    ),
    Goal(
        "peak memory growth of Net7-N `cpu`, of unfold's",
        Quantity.PEAK, _LESS, _NET7_N, _UNFOLD, _same(1 / 30, 1 / 50),
    ),
    Goal("`mix` alone, times faster than unfold", _TIME, _MORE, "mix/unfold/{}", "mix/cpu/{}", _same(18, 30)),
    Goal("AVX2 build / eager window Net7", _TIME, _LESS, f"{_NET7_N}/avx2", _EAGER_WINDOW, {"s1": Bounds(1.5, 1.0)}),
    *(
        Goal(
            f"`{name}` / its nearest equivalent",
            _TIME, _LESS, f"{name}/auto/{{}}", f"{name}/auto/{{}}/{NEAREST}", _SIBLING,
        )
        for name in SIBLINGS
    ),
    Goal("2 threads, times faster than 1 (wall)", _WALL, _MORE, _NET7_N, f"{_NET7_N}/2-threads", _same(1.8, 1.9)),
    Goal(
        "our window attention (q·k + r^b, shifted) / timm's core",
        _TIME, _LESS, "swin_shifted/auto/{}", "window_core/timm/{}/shifted", _same(1.0, 0.6),
    ),
    Goal(
        "training step of Swin-T with Net7-N in 3 stages / timm's Swin-T",
        _TIME, _LESS, "swin_t_net7_n/auto/{}", "swin_t/timm/{}", {"224": Bounds(1.5, 1.2)},
    ),
    Goal(
        "`laptop` training, images/s: `swin` preset / timm's own Swin at the same sizes",
        _TIME, _MORE, "laptop/timm/{}", "laptop/auto/{}", {"28": Bounds(1.3, 2)},
    ),
    Goal("`make table1`, training time on 2 cores, minutes", Quantity.REPORTED, _LESS, "", "", {"": Bounds(15, 10)}),
    Goal(
        "GPU, bf16, batch 128: Net7-N / Swin-T, images/s in training (the paper: 0.23)",
        _WALL, _MORE, "swin_t/timm/{}", "swin_t_net7_n/auto/{}", {"224": Bounds(0.5, 0.8)}, device="cuda",
    ),
)  # fmt: skip
"""A goal in images per second divides the other's time by ours."""


def judge(value: float | None, sense: Sense, bounds: Bounds, *, loaded: bool = False) -> Verdict:
    """The best bound that a value meets."""
    if value is None:
        return Verdict.NOT_MEASURED
    if loaded:
        return Verdict.LOADED
    meets = MEETS[sense]
    if bounds.aim is not None and meets(value, bounds.aim):
        return Verdict.MET_AIM
    return Verdict.MET_MUST if bounds.must is not None and meets(value, bounds.must) else Verdict.UNMET


Reported = tuple[float | None, str]
"""What stands in for a goal that is not measured here, and where it comes from."""


def judge_all(
    results: Sequence[Result], *, device: str = "cpu", loaded: bool = False, reported: Reported = (None, "")
) -> list[Judgement]:
    """Every goal on every shape."""
    found = {result.case.id: result for result in results}
    judgements = []
    for goal in GOALS:
        is_reported = goal.quantity == Quantity.REPORTED
        for shape, bounds in goal.bounds.items():
            ratio = Ratio(reported[0], note=reported[1]) if is_reported else _divide(goal, shape, found, device)
            verdict = judge(ratio.value, goal.sense, bounds, loaded=loaded and not is_reported)
            judgements.append(Judgement(goal.name, shape, goal.quantity, goal.sense, bounds, ratio, verdict))
    return judgements


def _divide(goal: Goal, shape: str, found: Mapping[str, Result], device: str) -> Ratio:
    """The numerator's median by the denominator's, or the numerator's alone where there is no other."""
    if goal.device != device:
        return Ratio(None, note="no CUDA device" if goal.device == "cuda" else "is measured on a CPU")
    ids = [name.format(shape) for name in (goal.numerator, goal.denominator) if name]
    values = []
    for name in ids:
        value = MEASURES[goal.quantity](found[name]) if name in found else None
        if value is None:
            was_tried = name in found and found[name].reason
            return Ratio(None, note=f"`{name}` {'did not run, see its note' if was_tried else 'was not measured'}")
        values.append(value)
    if len(values) == 1:
        return Ratio(values[0])
    if not values[1]:
        return Ratio(None, note=f"`{ids[1]}` is 0")
    return Ratio(values[0] / values[1], *_find_quartiles(goal, *(found[name] for name in ids)))


def _find_quartiles(goal: Goal, numerator: Result, denominator: Result) -> tuple[float | None, float | None]:
    """Of the ratio within each round that both were timed in."""
    if goal.quantity not in CLOCKS:
        return None, None
    clock = CLOCKS[goal.quantity]
    left, right = ({lap.round: getattr(lap, clock) for lap in result.train} for result in (numerator, denominator))
    ratios = [left[number] / right[number] for number in left if number in right]
    if len(ratios) < 2:
        return None, None
    low, high = np.quantile(ratios, [0.25, 0.75])
    return float(low), float(high)
