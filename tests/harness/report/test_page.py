import re
from pathlib import Path
from xml.etree import ElementTree

from harness.report.figures.figure import make_figure, styled, to_svg, write_figure
from harness.report.markdown import Section
from harness.report.page import to_page


def draw_line():
    figure = make_figure()
    figure.subplots().plot([1, 2, 3], [2.0, 3.0, 5.0])
    return figure


def test_a_page_needs_no_other_file() -> None:
    page = to_page("Heads < 3", [Section("Curves", "<p>Two of them.</p>", [draw_line(), draw_line()])])
    assert "<h1>Heads &lt; 3</h1>" in page
    assert page.count("<svg") == 2
    assert not re.search(r"""(src|href)=["']?(?!["']?#)|@import|url\((?!#)""", page)


def test_a_figure_is_drawn_the_same_each_time() -> None:
    assert to_svg(draw_line()) == to_svg(draw_line())


def test_a_figure_is_kept_as_png_and_svg(tmp_path: Path) -> None:
    png, svg = write_figure(draw_line(), tmp_path / "figures", "line")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")


def test_axes_are_made_in_the_style() -> None:
    assert draw_line().axes[0].spines["top"].get_visible()
    assert not styled(draw_line)().axes[0].spines["top"].get_visible()
