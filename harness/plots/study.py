"""Figures of a search: what its trials measured, and where in the space."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from harness.plots.figure import make_figure

Numbers = NDArray[np.float64]

BEST, TRIAL, FAILED = "#c44e52", "#1b6ca8", "#999999"
COLORS = "viridis"
MIN_SURFACE = 4
NUM_TICKS = 5


@dataclass(frozen=True)
class Scale:
    """How the values of a parameter lie on an axis.

    Attributes:
        name: the column of the parameter.
        log: whether the axis is logarithmic.
        zero_at: where 0 is drawn; None where it lies at 0.
        choices: names in the order of the axis, where the values are no numbers.
    """

    name: str
    log: bool = False
    zero_at: float | None = None
    choices: tuple[str, ...] = ()

    def place(self, values: "pd.Series[Any]") -> Numbers:
        """Positions that are evenly spaced on the axis: logarithms where it has a logarithmic scale."""
        if self.choices:
            return np.array([self.choices.index(str(value)) for value in values], dtype=float)
        numbers = values.to_numpy(dtype=float)
        if self.zero_at is not None:
            numbers = np.where(numbers == 0, self.zero_at, numbers)
        return np.log10(numbers) if self.log else numbers

    def ticks(self, values: "pd.Series[Any]") -> tuple[list[float], list[str]]:
        """Positions and names of a few values on the axis."""
        if self.choices:
            return list(map(float, range(len(self.choices)))), list(self.choices)
        shown = values[values != 0] if self.zero_at is not None else values
        places = self.place(shown) if len(shown) else np.zeros(1)
        spaced = np.linspace(places.min(), places.max(), NUM_TICKS if len(np.unique(places)) > 1 else 1)
        ticks = [(float(place), f"{10**place if self.log else place:.2g}") for place in spaced]
        if len(shown) < len(values):
            zero = float(self.place(pd.Series([0.0]))[0])
            ticks.insert(0, (zero, "0"))
        return [place for place, _ in ticks], [text for _, text in ticks]


def draw_history(frame: pd.DataFrame, label: str) -> Figure:
    """The first objective (column `value`, nothing where there is none) by trial, with the best so far."""
    figure = make_figure()
    axes = figure.subplots()
    measured = frame[frame["value"].notna()]
    axes.scatter(measured["trial"], measured["value"], s=18, color=TRIAL, label="trial")
    axes.step(measured["trial"], measured["value"].cummax(), where="post", color=BEST, label="best so far")
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


def draw_importances(importances: Mapping[str, float]) -> Figure:
    """A bar for each parameter, the most important on top; shares of 1."""
    figure = make_figure(height=1.2 + 0.4 * len(importances))
    axes = figure.subplots()
    names = sorted(importances, key=lambda name: importances[name])
    bars = axes.barh(names, [importances[name] for name in names], color=TRIAL)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlim(0, 1.1)
    axes.set_xlabel("importance for the objective")
    return figure


def draw_surface(frame: pd.DataFrame, x: Scale, y: Scale, label: str) -> Figure:
    """Every measured trial in the plane of two parameters, and the surface between them (linear interpolation)."""
    figure = make_figure(height=4.8)
    axes = figure.subplots()
    places, heights, values = x.place(frame[x.name]), y.place(frame[y.name]), frame["value"].to_numpy(dtype=float)
    norm = Normalize(values.min(), values.max())
    if _spans_plane(places, heights):
        axes.tricontourf(places, heights, values, levels=12, cmap=COLORS, norm=norm, alpha=0.6)
    points = axes.scatter(places, heights, c=values, cmap=COLORS, norm=norm, s=28, edgecolors="white", linewidths=0.6)
    best = int(values.argmax())
    axes.scatter(places[best], heights[best], marker="*", s=170, color=BEST, zorder=3, label="best")
    _set_ticks(axes, x, y, frame)
    figure.colorbar(points, ax=axes, label=label)
    axes.legend()
    return figure


def draw_slice(frame: pd.DataFrame, x: Scale, label: str) -> Figure:
    """Every measured trial over one parameter."""
    figure = make_figure()
    axes = figure.subplots()
    axes.scatter(x.place(frame[x.name]), frame["value"], s=18, color=TRIAL)
    ticks, names = x.ticks(frame[x.name])
    axes.set_xticks(ticks, names)
    axes.set_xlabel(x.name)
    axes.set_ylabel(label)
    return figure


def draw_parallel(frame: pd.DataFrame, scales: Sequence[Scale], label: str) -> Figure:
    """A line for each measured trial through its values; color, and height on the last axis, are the objective."""
    figure = make_figure(width=2 + 1.6 * (len(scales) + 1))
    axes = figure.subplots()
    columns = [*scales, Scale("value")]
    names = [*(scale.name for scale in scales), label]
    heights = np.stack([_to_unit(scale.place(frame[scale.name])) for scale in columns])
    values = frame["value"].to_numpy(dtype=float)
    norm = Normalize(values.min(), values.max())
    colors = colormaps[COLORS]
    for index in np.argsort(values):
        axes.plot(heights[:, index], color=colors(norm(values[index])), linewidth=1.2, alpha=0.8)
    for place, scale in enumerate(columns):
        _label_axis(axes, place, scale, frame)
    axes.set_xticks(range(len(columns)), names)
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines["left"].set_visible(False)
    return figure


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


def _set_ticks(axes: Axes, x: Scale, y: Scale, frame: pd.DataFrame) -> None:
    axes.set_xticks(*x.ticks(frame[x.name]))
    axes.set_yticks(*y.ticks(frame[y.name]))
    axes.set_xlabel(x.name)
    axes.set_ylabel(y.name)


def _to_unit(places: Numbers) -> Numbers:
    """Between 0 and 1; in the middle where all are alike."""
    width = np.ptp(places)
    return (places - places.min()) / width if width else np.full(len(places), 0.5)


def _label_axis(axes: Axes, place: int, scale: Scale, frame: pd.DataFrame) -> None:
    """Values beside one of the parallel axes."""
    axes.axvline(place, color="#444444", linewidth=0.8)
    ticks, names = scale.ticks(frame[scale.name])
    places = scale.place(frame[scale.name])
    low, width = places.min(), np.ptp(places)
    for tick, name in zip(ticks, names, strict=True):
        if low - 1e-9 <= tick <= low + width + 1e-9:
            height = (tick - low) / width if width else 0.5
            axes.annotate(name, (place, height), xytext=(4, 0), textcoords="offset points", fontsize=8, va="center")
