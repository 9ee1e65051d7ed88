"""Numbers and curves as text: for people, for LaTeX and for csv."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from harness.measure import Measure
from harness.text import NOTHING, escape_latex

CURVE_POINTS = 6

UNITS = {"G": 10**9, "M": 10**6, "k": 10**3, "": 1}


def join(separator: str) -> Callable[[Iterable[object]], str]:
    """A function that joins a list to one text."""
    return lambda values: separator.join(map(str, values))


def show_number(value: Any, form: str) -> str:
    """Format a number; a missing one is a dash."""
    return NOTHING if pd.isna(value) else format(value, form)


def show_count(value: Any) -> str:
    """Format a count with four digits and a unit: `137.2 k`, `28.29 M`, `4.491 G`."""
    if pd.isna(value):
        return NOTHING
    unit, size = next((unit, size) for unit, size in UNITS.items() if value >= size or size == 1)
    scaled = value / size
    digits = 0 if size == 1 else max(0, 4 - len(str(int(scaled))))
    return f"{scaled:.{digits}f} {unit}".strip()


def show_curve(curve: Mapping[int, float], form: str) -> str:
    """Format scores by epoch: `50: 71.50, 100: 74.90`."""
    return ", ".join(f"{epoch}: {score:{form}}" for epoch, score in curve.items())


def number_epochs(curve: Sequence[float]) -> dict[int, float]:
    """The scores of a curve by epoch, from 1."""
    return dict(enumerate(curve, start=1))


def show_short_curve(curve: Mapping[int, float], measure: Measure) -> str:
    """The last epoch and up to five before it, evenly spaced, in the measure's short format."""
    step = max(1, math.ceil(len(curve) / CURVE_POINTS))
    shown = sorted(curve)[::-1][::step][::-1]
    points = {epoch: round(curve[epoch], 6) for epoch in shown}  # rounding errors must not decide a tie
    return show_curve(points, measure.short_format) or NOTHING


def show_in_math(value: Any, form: str) -> str:
    """Format a number for LaTeX, with a minus sign instead of a hyphen."""
    shown = show_number(value, form)
    return escape_latex(NOTHING) if shown == NOTHING else f"${shown.replace(',', '{,}')}$"


def break_latex(text: str) -> str:
    """Add line-break opportunities to a LaTeX text for a column of fixed width: names of levels have no blanks."""
    return escape_latex(text).replace("+", r"+\allowbreak{}").replace(r"\_", r"\_\allowbreak{}")
