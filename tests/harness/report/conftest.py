"""What made-up records of the small experiment come to."""

from collections.abc import Callable

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.plan import Plan
from harness.record import Record
from harness.table.results import Results, make_results


@pytest.fixture
def results(small_plan: Plan, records: list[Record]) -> Results:
    """Three rows and two floors, three seeds each; `Net1` is worse, `Net7-N` unresolved."""
    return make_results(small_plan, records, current={})


@pytest.fixture
def find() -> Callable[[Axes, str], list[Line2D]]:
    """The lines of a panel that are drawn as `seed`, `mean`, `interval` ..."""
    return lambda panel, kind: [line for line in panel.lines if line.get_gid() == kind]


@pytest.fixture
def read() -> Callable[[Figure], str]:
    """Every text of a figure."""

    def read_texts(figure: Figure) -> str:
        figure.draw_without_rendering()
        return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))

    return read_texts
