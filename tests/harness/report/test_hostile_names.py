"""Whatever rows, titles and notes are called, every output shows it as text and keeps its own form."""

import csv
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from harness.plan import make_plan
from harness.record import EpochMetrics, Record, RunStatus
from harness.report.description import to_description
from harness.report.figures.figure import to_svg
from harness.report.latex import to_latex
from harness.report.markdown import to_markdown
from harness.report.table import to_table_csv
from harness.report.terminal import to_text
from harness.report.write import PLOTS, to_html
from harness.table.results import Results, make_results
from harness.text import to_line

NAMES = [
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "**b** | `c` _d_",
    "=1+1",
    "$x$ & 50 % #1 \\input{y}",
    "two\nlines \x1b[31mred\x07",
]


@pytest.fixture(scope="module")
def hostile(small_spec) -> Results:
    """The rows of a spec that was not checked; the first is the baseline, the last one diverged."""
    row = small_spec.rows["Swin-T"]
    rows = {name: row.model_copy(update={"num_heads": None}) for name in NAMES}
    recipe = small_spec.recipe.model_copy(update={"note": NAMES[0], "title": NAMES[1]})
    changed = {"rows": rows, "baseline": NAMES[0], "title": " ".join(NAMES), "published": {}, "recipe": recipe}
    plan = make_plan(small_spec.model_copy(update={**changed, "overrides": tuple(NAMES)}), is_derived=True)
    return make_results(plan, [_make_record(run.row.cell.id, run.row.name, run.seed) for run in plan.runs], current={})


def _make_record(cell_id: str, name: str, seed: int) -> Record:
    metrics = {"test/top1": 80.0 + seed, "val/top1": 80.0, "params": 1e5, "macs": 1e6}
    curve = (EpochMetrics(1, 10, {"val/top1": 70.0}), EpochMetrics(2, 20, {"val/top1": 80.0}))
    record = Record(cell_id, name, seed, RunStatus.OK, metrics, curve, {"device": NAMES[0], "commit": NAMES[2]})
    return record if seed else Record(cell_id, name, 0, RunStatus.FAILED, {}, status_detail=NAMES[0])


class _Page(HTMLParser):
    """The tags outside of figures, with their attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL))

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_has_no_tag_of_a_name(hostile: Results) -> None:
    html = to_html(hostile)
    page = _Page(html)
    assert not page.tags & {"script", "a", "img", "i", "b"}
    for name in NAMES:
        assert to_line(name) in page.text


@pytest.mark.parametrize("make", [to_markdown, to_description], ids=["markdown", "description"])
def test_markdown_has_no_markup_of_a_name(hostile: Results, make) -> None:
    page = _Page(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(make(hostile)))
    assert not page.tags & {"script", "a", "img", "s"}
    assert page.text.count(NAMES[1]) >= 2
    header = next(line for line in make(hostile).splitlines() if line.startswith("| row"))
    rule = next(line for line in make(hostile).splitlines() if line.startswith("|-"))
    assert len(re.findall(r"(?<!\\)\|", header)) == rule.count("|")


def test_csv_and_terminal_keep_a_line_for_each_row(hostile: Results) -> None:
    lines = list(csv.reader(io.StringIO(to_table_csv(hostile.columns, hostile.frame))))
    assert len(lines) == 1 + len(hostile.frame)
    assert not [cell for line in lines for cell in line if cell.startswith(("=", "@"))]
    text = to_text(hostile)
    assert len(text.splitlines()) == 2 + len(hostile.frame) + 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)


def test_latex_has_no_command_of_a_name(hostile: Results) -> None:
    latex = to_latex(hostile)
    assert r"\input" not in latex
    assert r"\$x\$ \& 50 \% \#1 \textbackslash{}input\{y\}" in latex
    assert "\x1b" not in latex


@pytest.mark.parametrize("plot", PLOTS)
def test_a_figure_stays_one_that_can_be_read(hostile: Results, plot) -> None:
    root = ElementTree.fromstring(to_svg(PLOTS[plot](hostile)))
    assert {element.tag.rpartition("}")[2] for element in _walk(root)}.isdisjoint({"script", "a", "image"})


def _walk(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    yield from root.iter()
