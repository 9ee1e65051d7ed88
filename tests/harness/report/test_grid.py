from dataclasses import replace

import pandas as pd
import pytest

from harness.plan import make_plan
from harness.record import RunStatus
from harness.spec import ExperimentSpec, PublishedSpec, RowSpec
from harness.table import Results, make_results


def to_display(results: Results) -> pd.DataFrame:
    """The texts of a table by row and title."""
    return pd.DataFrame([[cell.text for cell in line] for line in results.grid.lines], columns=results.grid.titles)


@pytest.fixture
def display(small_plan, records):
    return to_display(make_results(small_plan, records)).set_index("row")


def test_what_a_table_says_comes_before_sizes_whatever_the_order_of_the_experiment(small_plan, records):
    columns = ("normalization", "delta", "top1", "throughput", "macs", "params", "parameterization", "neighborhood")
    spec: ExperimentSpec = small_plan.spec.model_copy(update={"columns": columns})
    titles = list(to_display(make_results(replace(small_plan, spec=spec), records)).columns)
    assert titles == [
        *("row", "top-1, %", "Δ to Swin-T [95 %]", "verdict", "n", "paper", "paper Δ"),
        *("q·k", "q·r", "r·k", "b", "normalization", "neighborhood"),
        *("params", "multiply-adds", "images/s", "sign-flip p"),
    ]


def test_terms_are_ticks_and_other_levels_are_named(small_spec, records):
    rows = {
        **small_spec.rows,
        "Hadamard": RowSpec(stages={1: RowSpec(preset="elsa")}),
    }
    plan = make_plan(small_spec.model_copy(update={"rows": rows, "columns": ("parameterization",)}))
    display = to_display(make_results(plan, records)).set_index("row")
    terms = ["q·k", "q·r", "r·k", "b"]
    assert list(display.loc["Swin-T", terms]) == ["✓", "", "", "✓"]
    assert list(display.loc["Net7-N", terms]) == ["✓"] * 4
    assert list(display.loc["Hadamard", [*terms, "other"]]) == ["2", "", "", "2", "hadamard_conv (1)"]
    assert set(display.loc["Linear classifier", terms]) == {""}


def test_floors_stand_under_the_rows_and_apart(display):
    assert list(display.index) == ["Swin-T", "Net1", "Net7-N", "floors:", "Linear classifier", "One hidden layer"]
    assert set(display.loc["floors:"]) == {""}
    assert display.loc["Linear classifier", "verdict"] == "—"


def test_numbers_are_shown_as_people_read_them(display):
    assert dict(display.loc["Net1"]) == {
        "params": "137.0 k",
        "multiply-adds": "3.900 M",
        "images/s": "450",
        "n": "3",
        "top-1, %": "83.20 ± 0.26",
        "Δ to Swin-T [95 %]": "-0.97 [-1.57, -0.37]",
        "sign-flip p": "0.25",
        "verdict": "worse",
        "paper": "80.1",
        "paper Δ": "-1.2",
    }
    assert display.loc["Net7-N", "params"] == "226.1 k (1.65×)"


def test_a_quoted_number_has_a_dagger(display):
    assert display.loc["Swin-T", "paper"] == "81.3†"
    assert display.loc["Net7-N", "paper"] == "—"


def test_without_published_numbers_the_papers_columns_are_left_out(small_plan, records):
    spec = small_plan.spec.model_copy(update={"published": {}})
    plan = replace(small_plan, spec=spec)
    assert "paper" not in to_display(make_results(plan, records)).columns


def test_without_any_record_rows_show_dashes(small_plan):
    display = to_display(make_results(small_plan, [])).set_index("row")
    assert dict(display.loc["Net1"]) == {
        "params": "—",
        "multiply-adds": "—",
        "images/s": "—",
        "n": "0/3",
        "top-1, %": "—",
        "Δ to Swin-T [95 %]": "—",
        "sign-flip p": "—",
        "verdict": "—",
        "paper": "80.1",
        "paper Δ": "-1.2",
        "notes": "missing",
    }


def test_replicates_that_are_not_measured_are_told(small_plan, records, make_record):
    kept = [record for record in records if (record.row, record.seed) != ("Net1", 1)]
    diverged = make_record("Net1", 1, RunStatus.DIVERGED, step=412)
    display = to_display(make_results(small_plan, [*kept, diverged])).set_index("row")
    assert display.loc["Net1", "n"] == "2/3; diverged@412"


@pytest.mark.parametrize(
    ("params", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (7_850, "7.850 k"),
        (137_203, "137.2 k"),
        (28_288_354, "28.29 M"),
        (4_491_000_000, "4.491 G"),
    ],
)
def test_counts_have_four_digits_and_a_unit(small_plan, params, shown):
    baseline = small_plan.rows[0].cell.id
    results = make_results(small_plan, [], sizes={baseline: (params, params)})
    assert to_display(results).loc[0, "params"] == shown


def test_what_the_paper_prints_besides_accuracy_has_its_columns(small_plan, records):
    printed = PublishedSpec(params=28.3, macs=4.5, throughput=712, curve={50: 70.3, 300: 81.8})
    columns = ("top1", "curve")
    spec = small_plan.spec.model_copy(update={"published": {"Net1": printed}, "columns": columns})
    display = to_display(make_results(replace(small_plan, spec=spec), records)).set_index("row")
    assert display.loc["Net1", "paper size"] == "28.3 M, 4.5 G"
    assert display.loc["Net1", "paper images/s"] == "712"
    assert display.loc["Net1", "paper by epoch"] == "50: 70.3, 300: 81.8"
    assert display.loc["Swin-T", "paper size"] == "—"
    assert "paper Δ" not in display.columns


def test_a_curve_is_shown_at_few_epochs_and_at_its_last(small_plan, records):
    spec = small_plan.spec.model_copy(update={"columns": ("curve",)})
    results = make_results(replace(small_plan, spec=spec), records)
    shown = to_display(results).set_index("row").loc["Net1", "val top-1 by epoch"]
    assert [point.split(":")[0] for point in shown.split(", ")] == ["2", "4", "6", "8"]
    assert len(results.frame.set_index("row").loc["Net1", "val_curve"]) == 8
