"""The roofline plot: the speed of each case below the machine's limits."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.ceiling import Ceiling
from benchmarks.session import Report
from harness.report.figures.figure import COLORS


def draw_roofline(frame: pd.DataFrame, report: Report, path: Path) -> None:
    """Forward and backward of every operator; one panel a shape, a color for whose code it is."""
    known = frame[frame["train_gflops"].notna() & (frame["threads"] == 1)]
    shapes = list(dict.fromkeys(known["shape"])) or [""]
    figure = Figure(figsize=(7.5 * len(shapes), 6.2), layout="constrained")
    panels = figure.subplots(1, len(shapes), squeeze=False, sharey=True)[0]
    colors = {name: COLORS[index % len(COLORS)] for index, name in enumerate(dict.fromkeys(known["backend"]))}
    for panel, shape in zip(panels, shapes, strict=True):
        points = known[known["shape"] == shape]
        _draw_roof(panel, report.ceiling, points)
        _draw_points(panel, points, colors)
        panel.set_title(f"{shape}: forward + backward", loc="left")
        panel.set_xlabel("FLOP per byte, each input, output and gradient moved once")
    panels[0].set_ylabel("GFLOP/s on one thread" if report.setting.device == "cpu" else "GFLOP/s")
    marked = " - LOADED: NOT A RESULT" if report.loaded else ""
    figure.suptitle(f"{report.machine.name}, {report.machine.facts['dtype']}{marked}", x=0.01, ha="left")
    figure.savefig(path, dpi=110)


def _draw_roof(panel: Axes, ceiling: Ceiling, points: pd.DataFrame) -> None:
    peak, slope = ceiling.flops / 1e9, ceiling.bandwidth / 1e9
    lowest, highest = (
        (points["train_flop_per_byte"].min(), points["train_flop_per_byte"].max()) if len(points) else (1, 10)
    )
    intensity = np.geomspace(min(lowest, peak / slope) / 2, 4 * max(highest, peak / slope), 200)
    panel.plot(intensity, np.minimum(peak, slope * intensity), color="#222222", linewidth=1.5)
    panel.text(intensity[-1], peak * 1.05, f"matrix product {peak:,.0f} GFLOP/s", ha="right", va="bottom", fontsize=9)
    panel.text(intensity[0], slope * intensity[0] * 0.8, f"copy {slope:,.1f} GB/s", ha="left", va="top", fontsize=9)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)


def _draw_points(panel: Axes, points: pd.DataFrame, colors: dict[str, str]) -> None:
    """A point a case, its name beside it; names that would cover each other are moved apart."""
    rows = [{str(name): value for name, value in row.items()} for row in points.to_dict("records")]
    for backend in dict.fromkeys(row["backend"] for row in rows):
        mine = [row for row in rows if row["backend"] == backend]
        x, y = [row["train_flop_per_byte"] for row in mine], [row["train_gflops"] for row in mine]
        panel.scatter(x, y, s=28, color=colors[backend], label=backend, zorder=3)
    labels = sorted(rows, key=lambda row: row["train_gflops"])
    heights = _spread([row["train_gflops"] for row in labels], [row["train_flop_per_byte"] for row in labels])
    for row, height in zip(labels, heights, strict=True):
        name = row["operator"] + (f" {row['variant']}" if row["variant"] else "")
        panel.annotate(
            f"{name} ({row['backend']})",
            (row["train_flop_per_byte"], row["train_gflops"]),
            xytext=(row["train_flop_per_byte"] * 1.12, height),
            fontsize=8,
            va="center",
            color=colors[row["backend"]],
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.5},
        )
    panel.legend(loc="lower right", fontsize=8, title="whose code", framealpha=0.9)


def _spread(heights: list[float], places: list[float], *, step: float = 1.14, near: float = 2.5) -> list[float]:
    """Labels from low to high, each at least a factor above those near it that stand already."""
    placed: list[tuple[float, float]] = []
    for height, place in zip(heights, places, strict=True):
        below = [other for other, where in placed if 1 / near < where / place < near]
        lifted = height
        for other in sorted(below):
            if other / step < lifted < other * step:
                lifted = other * step
        placed.append((lifted, place))
    return [height for height, _ in placed]
