"""Places labels beside points without overlaps."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from harness.report.figures.figure import to_short_lines

Side = tuple[int, int]

FONT_SIZE = 8

MARKER_RADIUS = 5.0
"""Radius around a point that no name may overlap, in 1/72 inch."""

DISTANCES = (7.0, 14.0, 22.0, 32.0, 44.0, 58.0)
"""Distances between a point and its name, the nearest first, in 1/72 inch."""

SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
"""Directions (right, up) from a point to its name, the best first."""

ALIGNMENTS = {1: ("left", "bottom"), 0: ("center", "center"), -1: ("right", "top")}


@dataclass(frozen=True)
class Point:
    """A point of the axes with its name."""

    x: float
    y: float
    name: str
    color: str


def name_points(panel: Axes, points: Sequence[Point], *, others: Sequence[Point] = ()) -> list[Annotation]:
    """Put each name at the nearest free place; a distant name is connected with its point by a thin line.

    The limits and all other content of the panel must be final. `others` are points without names. If no place in the
    panel is free, the name is omitted.
    """
    figure = panel.get_figure(root=True)
    assert figure is not None
    FigureCanvasAgg(figure)  # measures texts
    figure.draw_without_rendering()  # computes the layout
    pixels = figure.dpi / 72
    taken = [_find_box(panel, point).padded(MARKER_RADIUS * pixels) for point in (*points, *others)]
    names = []
    for point in sorted(points, key=lambda point: -point.y):
        text = panel.text(0, 0, to_short_lines(point.name), fontsize=FONT_SIZE)
        extent = text.get_window_extent()
        text.remove()
        for distance, side in product(DISTANCES, SIDES):
            box = _find_box(panel, point, side, distance * pixels, (extent.width, extent.height))
            if _contains(panel.bbox, box) and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                names.append(_annotate(panel, point, side, distance))
                break
    return names


def _find_box(
    panel: Axes, point: Point, side: Side = (0, 0), distance: float = 0.0, size: tuple[float, float] = (0.0, 0.0)
) -> Bbox:
    """The area of a text of this size, in pixels."""
    x, y = panel.transData.transform((point.x, point.y))
    left = x + side[0] * distance - size[0] * (1 - side[0]) / 2
    bottom = y + side[1] * distance - size[1] * (1 - side[1]) / 2
    return Bbox.from_bounds(left, bottom, *size)


def _annotate(panel: Axes, point: Point, side: Side, distance: float) -> Annotation:
    annotation = panel.annotate(
        to_short_lines(point.name),
        (point.x, point.y),
        xytext=(side[0] * distance, side[1] * distance),
        textcoords="offset points",
        ha=ALIGNMENTS[side[0]][0],
        va=ALIGNMENTS[side[1]][1],
        fontsize=FONT_SIZE,
        color=point.color,
        arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.6} if distance > DISTANCES[0] else None,
    )
    annotation.set_in_layout(False)  # else the axes would shrink to make room for it
    return annotation


def _contains(outer: Bbox, inner: Bbox) -> bool:
    return bool(outer.x0 <= inner.x0 and inner.x1 <= outer.x1 and outer.y0 <= inner.y0 and inner.y1 <= outer.y1)
