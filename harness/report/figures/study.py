"""Figures of a search: objectives of its trials, and where in the space they lie."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray

from harness.measure import Measure
from harness.report.figures.figure import STYLE, make_figure
from harness.text import escape_figure

Numbers = NDArray[np.float64]

BEST, TRIAL, FAILED = "#c44e52", "#1b6ca8", "#999999"
COLORS = "viridis"
MIN_SURFACE = 4
NUM_TICKS = 5
MARGIN = 0.04
SLACK = 1e-9


@dataclass(frozen=True)
class Scale:
    """How the values of a column lie on an axis.

    Attributes:
        ends: of the numbers; without effect where there are choices.
        log: whether the axis is logarithmic.
        zero_at: where the value 0 is drawn; None where it lies at 0.
        choices: the values in the order of the axis, of any type, where it is not a range of numbers.
        labels: the text of each choice.
    """

    name: str
    ends: tuple[float, float] = (0.0, 1.0)
    log: bool = False
    zero_at: float | None = None
    choices: tuple[Any, ...] = ()
    labels: tuple[str, ...] = ()

    def place(self, values: Iterable[Any]) -> Numbers:
        """Positions that are evenly spaced on the axis: logarithms where it has a logarithmic scale."""
        if self.choices:
            return np.array([self.choices.index(value) for value in values], dtype=float)
        numbers = np.array(list(values), dtype=float)
        if self.zero_at is not None:
            numbers = np.where(numbers == 0, self.zero_at, numbers)
        return np.log10(numbers) if self.log else numbers

    @property
    def limits(self) -> tuple[float, float]:
        """The positions between which all values lie."""
        if self.choices:
            return 0.0, len(self.choices) - 1.0
        low, high = self.place(self.ends)
        zero = low if self.zero_at is None else self.place([0.0])[0]
        return float(min(low, zero)), float(high)

    def ticks(self) -> tuple[Numbers, list[str]]:
        """Positions and names of a few values."""
        if self.choices:
            return np.arange(len(self.choices), dtype=float), [escape_figure(label) for label in self.labels]
        spaced = _space_log(*self.ends) if self.log else MaxNLocator(NUM_TICKS).tick_values(*self.ends)
        low, high = self.ends
        inside = (x for x in spaced if low <= x * (1 + SLACK) and x * (1 - SLACK) <= high)
        shown = [float(x) for x in inside if x != 0 or self.zero_at is None]
        shown += [] if self.zero_at is None else [0.0]
        return self.place(shown), [f"{value:g}" for value in shown]


def _space_log(low: float, high: float) -> list[float]:
    """The powers of ten between two numbers; where there are few, their threefold too."""
    powers = [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    return powers if len(powers) > NUM_TICKS else sorted([*powers, *(3 * power for power in powers)])


@mpl.rc_context(STYLE)
def draw_history(frame: pd.DataFrame, measure: Measure, label: str) -> Figure:
    """The first objective (column `value`, nothing where there is none) by trial, with the best so far."""
    figure = make_figure()
    axes = figure.subplots()
    measured = frame[frame["value"].notna()]
    best = measure.sign * (measure.sign * measured["value"]).cummax()
    axes.scatter(measured["trial"], measured["value"], s=18, color=TRIAL, label="trial")
    axes.step(measured["trial"], best, where="post", color=BEST, label="best so far")
    missing = frame[frame["value"].isna()]
    if len(missing):
        transform = axes.get_xaxis_transform()
        ends = np.full(len(missing), 0.02)
        axes.scatter(
            missing["trial"], ends, marker="x", s=18, color=FAILED, transform=transform, label="no measurement"
        )
    axes.set_xlabel("trial")
    axes.set_ylabel(label)
    axes.legend()
    return figure


@mpl.rc_context(STYLE)
def draw_importances(importances: Mapping[str, float]) -> Figure:
    """A bar for each parameter, the most important on top; shares of 1."""
    figure = make_figure(height=1.2 + 0.4 * len(importances))
    axes = figure.subplots()
    names = sorted(importances, key=lambda name: importances[name])
    bars = axes.barh([escape_figure(name) for name in names], [importances[name] for name in names], color=TRIAL)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlim(0, 1.1)
    axes.set_xlabel("importance for the objective")
    return figure


@mpl.rc_context(STYLE)
def draw_surface(frame: pd.DataFrame, x: Scale, y: Scale, measure: Measure, label: str) -> Figure:
    """Every measured trial in the plane of two parameters, and the surface between them (linear interpolation)."""
    figure = make_figure(height=4.8)
    axes = figure.subplots()
    places, heights, values = x.place(frame[x.name]), y.place(frame[y.name]), frame["value"].to_numpy(dtype=float)
    norm = Normalize(values.min(), values.max())
    if _spans_plane(places, heights):
        axes.tricontourf(places, heights, values, levels=12, cmap=COLORS, norm=norm, alpha=0.6)
    points = axes.scatter(places, heights, c=values, cmap=COLORS, norm=norm, s=28, edgecolors="white", linewidths=0.6)
    best = int((measure.sign * values).argmax())
    axes.scatter(places[best], heights[best], marker="*", s=170, color=BEST, zorder=3, label="best")
    axes.set_xticks(*x.ticks())
    axes.set_yticks(*y.ticks())
    axes.set_xlim(*_widen(x.limits))
    axes.set_ylim(*_widen(y.limits))
    axes.set_xlabel(escape_figure(x.name))
    axes.set_ylabel(escape_figure(y.name))
    figure.colorbar(points, ax=axes, label=label)
    axes.legend()
    return figure


@mpl.rc_context(STYLE)
def draw_slice(frame: pd.DataFrame, x: Scale, label: str) -> Figure:
    """Every measured trial over one parameter."""
    figure = make_figure()
    axes = figure.subplots()
    axes.scatter(x.place(frame[x.name]), frame["value"], s=18, color=TRIAL)
    axes.set_xticks(*x.ticks())
    axes.set_xlim(*_widen(x.limits))
    axes.set_xlabel(escape_figure(x.name))
    axes.set_ylabel(label)
    return figure


@mpl.rc_context(STYLE)
def draw_parallel(frame: pd.DataFrame, scales: Sequence[Scale], measure: Measure, label: str) -> Figure:
    """A line for each measured trial through its values; color, and height on the last axis, are the objective."""
    figure = make_figure(width=2 + 1.6 * (len(scales) + 1))
    axes = figure.subplots()
    values = frame["value"].to_numpy(dtype=float)
    columns = [*scales, Scale("value", (float(values.min()), float(values.max())))]
    heights = np.stack([_to_unit(scale.place(frame[scale.name]), scale.limits) for scale in columns])
    norm = Normalize(values.min(), values.max())
    colors = colormaps[COLORS]
    for index in np.argsort(measure.sign * values):
        axes.plot(heights[:, index], color=colors(norm(values[index])), linewidth=1.2, alpha=0.8)
    for place, scale in enumerate(columns):
        _label_axis(axes, place, scale)
    axes.set_xticks(range(len(columns)), [*(escape_figure(scale.name) for scale in scales), label])
    axes.grid(visible=False)
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines["left"].set_visible(False)
    return figure


@mpl.rc_context(STYLE)
def draw_front(frame: pd.DataFrame, label: str, other: str, other_label: str) -> Figure:
    """Two objectives of every measured trial; those on the Pareto front (column `is_best`) are joined."""
    figure = make_figure()
    axes = figure.subplots()
    axes.scatter(frame[other], frame["value"], s=18, color=TRIAL, label="trial")
    front = frame[frame["is_best"]].sort_values(other)
    axes.plot(front[other], front["value"], marker="o", color=BEST, label="Pareto front")
    axes.set_xlabel(other_label)
    axes.set_ylabel(label)
    axes.legend()
    return figure


def _spans_plane(x: Numbers, y: Numbers) -> bool:
    """Whether points have triangles between them."""
    points = np.unique(np.stack([x, y], axis=1), axis=0)
    return len(points) >= MIN_SURFACE and np.linalg.matrix_rank(points - points.mean(axis=0), tol=1e-6) == 2


def _widen(limits: tuple[float, float]) -> tuple[float, float]:
    """Room for points at the ends."""
    margin = MARGIN * (limits[1] - limits[0])
    return limits[0] - margin, limits[1] + margin


def _to_unit(places: Numbers, limits: tuple[float, float]) -> Numbers:
    """Between 0 and 1; in the middle where there is one value alone."""
    low, high = limits
    return (places - low) / (high - low) if high > low else np.full(len(places), 0.5)


def _label_axis(axes: Axes, place: int, scale: Scale) -> None:
    """Values beside one of the parallel axes."""
    axes.axvline(place, color="#444444", linewidth=0.8)
    ticks, names = scale.ticks()
    for height, name in zip(_to_unit(ticks, scale.limits), names, strict=True):
        axes.annotate(name, (place, height), xytext=(4, 0), textcoords="offset points", fontsize=8, va="center")
