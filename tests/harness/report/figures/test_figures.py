"""What every figure of a table shows, and that bad outcomes are seen in it."""

from dataclasses import replace
from typing import get_args

import pytest
from matplotlib.figure import Figure

from harness.plan import make_plan
from harness.record import EpochMetrics, RunStatus
from harness.report.figures.curve import draw_curves
from harness.report.figures.delta import VERDICT_COLORS, draw_deltas
from harness.report.figures.figure import COLORS, make_figure, to_svg
from harness.report.figures.heads import draw_heads
from harness.report.figures.labels import Point, name_points
from harness.report.figures.size import draw_sizes
from harness.report.summary import PLOT_TITLES
from harness.report.write import ON_EVERY_PAGE, PLOTS, to_html
from harness.spec import OutcomeSpec, Plot, PublishedSpec, RowSpec
from harness.statistics import Verdict
from harness.table.results import make_results

every_plot = pytest.mark.parametrize("plot", PLOTS)


def change_spec(plan, **changes):
    return make_plan(plan.spec.model_copy(update=changes))


def test_every_name_of_a_plot_is_drawn_and_has_a_title() -> None:
    assert set(get_args(Plot)) == set(PLOTS) == set(PLOT_TITLES)


def test_a_row_has_its_mean_its_interval_and_a_dot_a_seed(results, find) -> None:
    (panel,) = draw_deltas(results).axes
    assert [list(line.get_xdata()) for line in find(panel, "seed")] == [
        pytest.approx([-1.0, -0.9, -1.0]),
        pytest.approx([0.3, -0.2, 0.5]),
    ]
    rows = results.frame.set_index("row").loc[["Net1", "Net7-N"]]
    assert [line.get_xdata()[0] for line in find(panel, "mean")] == list(rows["delta"])
    worst = find(panel, "interval")[0]
    assert list(worst.get_xdata()) == list(rows.loc["Net1", ["delta_low", "delta_high"]])
    colors = [line.get_color() for line in find(panel, "mean")]
    assert colors == [VERDICT_COLORS[Verdict.WORSE], VERDICT_COLORS[Verdict.UNRESOLVED]]


def test_the_papers_difference_stands_beside_ours(results, find) -> None:
    (panel,) = draw_deltas(results).axes
    (mark,) = find(panel, "published")
    assert mark.get_xdata()[0] == pytest.approx(80.1 - 81.3)


def test_an_interval_that_goes_beyond_the_axis_ends_in_arrows(small_plan, records, find) -> None:
    two = change_spec(small_plan, seeds=2)
    base = {record.seed: record.metrics["test/top1"] for record in records if record.row == "Swin-T"}
    noisy = [
        replace(record, metrics={**record.metrics, "test/top1": base[record.seed] - 0.5 * (-1) ** record.seed})
        if record.row == "Net1"
        else record
        for record in records
    ]
    (panel,) = draw_deltas(make_results(two, noisy, current={})).axes
    assert {line.get_marker() for line in panel.lines} >= {"<", ">"}
    for line in find(panel, "interval"):
        assert panel.get_xlim()[0] < min(line.get_xdata()) < max(line.get_xdata()) < panel.get_xlim()[1]


def test_one_seed_has_no_interval(small_plan, records, find) -> None:
    (panel,) = draw_deltas(make_results(change_spec(small_plan, seeds=1), records, current={})).axes
    assert [len(line.get_xdata()) for line in find(panel, "seed")] == [1, 1]
    assert find(panel, "interval") == []


def test_curves_have_a_mean_a_row_and_a_line_a_seed(results, find) -> None:
    (panel,) = draw_curves(results).axes
    assert len(find(panel, "mean")) == 5
    assert len(find(panel, "seed")) == 15
    assert {len(line.get_xdata()) for line in find(panel, "mean")} == {8}
    assert len({line.get_color() for line in find(panel, "mean")}) == 4  # the floors are both gray


def test_the_papers_curves_have_a_panel_of_their_own(small_plan, records, find) -> None:
    plan = change_spec(small_plan, published={"Net1": PublishedSpec(curve={50: 70.0, 100: 75.0})})
    ours, papers = draw_curves(make_results(plan, records, current={})).axes
    assert find(ours, "published") == []
    (curve,) = find(papers, "published")
    assert (list(curve.get_xdata()), list(curve.get_ydata())) == ([50, 100], [70.0, 75.0])


def test_a_run_that_diverged_is_seen_as_far_as_it_went(small_plan, make_record, find) -> None:
    curve = (EpochMetrics(1, 10, {"val/top1": 20.0}), EpochMetrics(2, 20, {"val/top1": float("nan")}))
    diverged = make_record("Net1", 0, RunStatus.DIVERGED, step=15, curve=curve)
    (panel,) = draw_curves(make_results(small_plan, [make_record("Swin-T"), diverged], current={})).axes
    (cross,) = find(panel, "bad end")
    assert (list(cross.get_xdata()), list(cross.get_ydata())) == ([1], [20.0])


def test_more_rows_than_colors_are_counted_and_the_baseline_is_named(small_plan, make_record, read) -> None:
    rows = {f"row {number}": RowSpec(heads=(1, 2), ghost_lambda=0.1 * number) for number in range(len(COLORS) + 3)}
    operator = {"aggregation": "ghost_head"}
    rows = {name: row.model_copy(update=operator) for name, row in rows.items()} | {"Swin-T": RowSpec()}
    plan = change_spec(small_plan, rows=rows, published={})
    made = [
        replace(make_record("Swin-T"), cell_id=row.cell.id, row=row.name) for row in plan.rows if row.name != "Swin-T"
    ]
    texts = read(draw_curves(make_results(plan, [make_record("Swin-T"), *made], current={})))
    assert "Swin-T (1/3)" in texts.splitlines()
    assert "4 further rows" in texts


def test_a_point_a_row_stands_in_both_panels_under_its_name(results) -> None:
    figure = draw_sizes(results)
    for panel in figure.axes:
        assert len(panel.collections[0].get_offsets()) == 3
        assert {text.get_text() for text in panel.texts} == {"Swin-T", "Net1", "Net7-N"}


def test_the_papers_sizes_have_panels_of_their_own(small_plan, records) -> None:
    published = {"Net1": PublishedSpec(top1=80.0, params=28.0, macs=4.5)}
    figure = draw_sizes(make_results(change_spec(small_plan, published=published), records, current={}))
    assert [list(map(tuple, panel.collections[0].get_offsets())) for panel in figure.axes[2:]] == [
        [(4.5e9, 80.0)],
        [(28e6, 80.0)],
    ]


def test_names_cover_neither_each_other_nor_a_point() -> None:
    figure = make_figure()
    panel = figure.subplots()
    points = [Point(0.1 * (n % 4), 0.02 * n, f"a rather long name {n}", "black") for n in range(12)]
    panel.scatter([point.x for point in points], [point.y for point in points])
    panel.margins(0.4)
    names = name_points(panel, points)
    figure.draw_without_rendering()
    boxes = [super(type(name), name).get_window_extent() for name in names]
    places = panel.transData.transform([(point.x, point.y) for point in points])
    assert len(names) == len(points)
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    assert not any(box.contains(*place) for box in boxes for place in places)


@pytest.fixture
def heads_plan(small_plan):
    rows = {
        "LSA, 1": RowSpec(heads=1),
        "LSA, 1x": RowSpec(),
        "LSA, C": RowSpec(heads="C"),
        "DwConv, 1": RowSpec(preset="dwconv", heads=1),
    }
    claims = (OutcomeSpec(outcome=("LSA, C",), status="out_of_memory"),)
    published = {"LSA, 1": PublishedSpec(top1=78.9)}
    return change_spec(small_plan, rows=rows, baseline="LSA, 1x", published=published, claims=claims)


def test_rows_that_differ_by_heads_alone_are_one_line(heads_plan, make_record, find, read) -> None:
    rows = [row for row in heads_plan.rows if row.name != "LSA, C"]
    made = [replace(make_record("Swin-T"), cell_id=row.cell.id, row=row.name) for row in rows]
    figure = draw_heads(make_results(heads_plan, made, current={}))
    ours, papers = figure.axes
    assert [(line.get_label(), len(line.get_xdata())) for line in find(ours, "line")] == [("LSA", 2), ("DwConv, 1", 1)]
    assert [label.get_text() for label in ours.get_xticklabels()] == ["1\n1, 1", "1x\n2, 4", "C\n8, 16"]
    assert [len(find(panel, "gap")) for panel in (ours, papers)] == [1, 1]
    assert {"missing", "out_of_memory"} <= set(read(figure).splitlines())


@every_plot
def test_a_row_without_a_number_is_a_named_gap(small_plan, records, make_record, read, plot):
    bad = [
        make_record("Net1", 0, RunStatus.DIVERGED, step=412, metrics={}),
        make_record("Net7-N", 0, RunStatus.OUT_OF_MEMORY, metrics={}),
    ]
    made = [record for record in records if record.row not in ("Net1", "Net7-N")]
    texts = read(PLOTS[plot](make_results(small_plan, [*made, *bad], current={})))
    assert "diverged@412" in texts
    assert "out_of_memory" in texts


@every_plot
def test_rows_with_fewer_seeds_are_drawn_and_say_so(small_plan, records, make_record, read, plot) -> None:
    bad = make_record("Net1", 1, RunStatus.DIVERGED, step=7)
    made = [record for record in records if (record.row, record.seed) not in (("Net1", 1), ("Net7-N", 2))]
    texts = read(PLOTS[plot](make_results(small_plan, [*made, bad], current={})))
    assert "2/3; diverged@7" in texts
    assert "2/3" in texts.replace("2/3; diverged@7", "")


@every_plot
@pytest.mark.parametrize("kept", [(), ("Net1",)], ids="".join)
def test_whatever_is_missing_a_figure_is_drawn(small_plan, records, plot, kept) -> None:
    figure = PLOTS[plot](make_results(small_plan, [record for record in records if record.row in kept], current={}))
    assert isinstance(figure, Figure)
    assert to_svg(figure).endswith("</svg>\n")


@every_plot
def test_a_baseline_alone_is_drawn(small_plan, records, plot) -> None:
    alone = change_spec(small_plan, rows={"Swin-T": RowSpec()}, published={})
    assert "<svg" in to_svg(PLOTS[plot](make_results(alone, records, current={})))


@every_plot
def test_overrides_leave_room_for_the_panels(small_plan, records, plot) -> None:
    """A title that is wider than the figure makes matplotlib give up its layout, and warn."""
    overrides = tuple(f"training.augmentation.shift={number}" for number in range(20))
    many = change_spec(small_plan, overrides=overrides, published={})
    figure = PLOTS[plot](make_results(many, records, current={}))
    figure.draw_without_rendering()
    assert all("shift=" not in panel.get_title(loc="left") for panel in figure.axes)


@pytest.mark.parametrize("plot", ON_EVERY_PAGE)
def test_a_name_is_no_formula(small_plan, records, plot) -> None:
    rows = {"_$x$_": RowSpec(parameterization=("query_key",)), "Swin-T": RowSpec()}
    plan = change_spec(small_plan, rows=rows, published={})
    made = [replace(record, row="_$x$_") if record.row == "Net1" else record for record in records]
    svg = to_svg(PLOTS[plot](make_results(plan, made, current={})))
    assert "_$x$_" in svg


def test_a_page_has_the_table_and_its_figures_and_needs_nothing_else(small_plan, records) -> None:
    rows = {"<b>&": RowSpec(parameterization=("query_key",)), "Swin-T": RowSpec()}
    page = to_html(make_results(change_spec(small_plan, rows=rows, published={}), records, current={}))
    assert page.count("<svg") == len(ON_EVERY_PAGE)
    assert "<td>&lt;b&gt;&amp;</td>" in page
    assert "<strong>worse</strong>" in page
    assert "<b>" not in page
    for reference in ("src=", "<link", "@import", 'href="http', "url(http", "**", "<script"):
        assert reference not in page
