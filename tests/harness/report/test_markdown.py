import re
from dataclasses import replace

import pandas as pd
import pytest

from harness.plan import make_plan
from harness.record import RunStatus
from harness.report.markdown import to_markdown
from harness.report.table import write_table
from harness.report.terminal import to_text
from harness.table import list_columns, make_results


@pytest.fixture
def markdown(small_plan, records) -> str:
    return to_markdown(make_results(small_plan, records))


def test_the_report_says_what_is_compared(markdown):
    assert markdown.startswith("# A small experiment (arXiv:2112.12786v1, Table 1)\n")
    assert (
        "3 rows, each trained with 3 seeds under the recipe `tiny`: 100 training images of `fashion_mnist`, 2 epochs. "
    ) in markdown


def test_only_what_is_proven_is_bold_in_the_table(markdown):
    table = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert re.findall(r"\*\*(.*?)\*\*", "\n".join(table)) == ["worse"]


def test_the_report_says_how_to_read_it(markdown):
    assert "All intervals of the table hold together with 95 %." in markdown
    assert "Dunnett's step-down test over the 2 comparisons of this table" in markdown
    assert "with 3 it cannot be below 0.25" in markdown
    assert "† quoted there from another paper" in markdown
    assert "than the recipe `tiny`: compare the sign and the order" in markdown


def test_the_report_explains_only_what_it_shows(markdown):
    for absent in ("`stale`", "`missing`", "diverged@", "`paper: ...`", "not above them"):
        assert absent not in markdown


def test_the_report_says_where_it_comes_from(markdown):
    _, origin = markdown.split("## Where it comes from")
    for fact in ("`c0de`", "`da7a`", "8c1f0e2", "torch 2.14.1", "AMD EPYC", "seeds 0, 1, 2", "`tiny`", "2026-11-18"):
        assert fact in origin


def test_uncommitted_changes_and_several_digests_are_told(small_plan, records):
    def change(record):
        return replace(record, provenance={**record.provenance, "code_digest": "f00d", "dirty": "true"})

    mixed = [change(record) if record.row == "Net1" else record for record in records]
    markdown = to_markdown(make_results(small_plan, mixed))
    assert "`f00d` (Net1)" in markdown
    assert "8c1f0e2, 8c1f0e2 (+ uncommitted changes)" in markdown


def test_a_recipe_without_floors_says_so(small_plan, records):
    plan = replace(small_plan, rows=tuple(row for row in small_plan.rows if not row.is_floor))
    assert "trains no floors" in to_markdown(make_results(plan, records))
    assert "trains no floors" not in to_markdown(make_results(small_plan, records))


def test_marks_and_bad_outcomes_are_explained(small_plan, make_record):
    diverged = [make_record("Net1", 0, RunStatus.DIVERGED, step=412, status_detail="the loss is nan")]
    markdown = to_markdown(make_results(small_plan, diverged))
    for note in (
        "0/3; diverged@412",
        "`missing`: ",
        "`partial`: ",
        "**n** counts",
        "Net1: seed 0 diverged at step 412: the loss is nan.",
    ):
        assert note in markdown


def test_a_baseline_below_a_floor_is_told(small_plan, records):
    def weaken(record):
        return replace(record, metrics={**record.metrics, "test/top1": 70.0 + record.seed})

    weak = [weaken(record) if record.row == "Swin-T" else record for record in records]
    markdown = to_markdown(make_results(small_plan, weak))
    assert "Swin-T is not above them: this table shows early optimization" in markdown


def test_one_seed_is_never_called_significant(small_spec, records):
    plan = make_plan(small_spec.model_copy(update={"seeds": 1}))
    markdown = to_markdown(make_results(plan, records))
    assert "One pair of seeds has no interval and resolves nothing." in markdown
    assert "Holm" not in markdown


def test_a_table_with_nothing_finished_still_renders(small_plan):
    results = make_results(small_plan, [])
    assert "| Net1 " in to_markdown(results)
    assert "Net1" in to_text(results)


def test_a_table_without_comparisons_renders(small_plan, records):
    plan = replace(small_plan, spec=small_plan.spec.model_copy(update={"columns": ("params",), "published": {}}))
    markdown = to_markdown(make_results(plan, records))
    assert "verdict" not in markdown
    assert "137.0 k" in markdown


def test_a_pipe_in_a_name_does_not_break_the_table(small_plan, records):
    results = make_results(small_plan, records)
    renamed = replace(results, frame=results.frame.replace({"row": {"Net1": "a|b"}}))
    assert r"| a\|b " in to_markdown(renamed)


def test_the_plots_that_are_asked_for_stand_below_the_table(small_plan, records):
    plan = replace(small_plan, spec=small_plan.spec.model_copy(update={"plots": ("curve",)}))
    markdown = to_markdown(make_results(plan, records))
    assert "\n\n![Validation accuracy by epoch](small-curve.png)\n\n## How to read it" in markdown


def test_the_terminal_shows_the_table_without_factors_and_markup(small_spec, records):
    plan = make_plan(small_spec.model_copy(update={"columns": ("parameterization", "top1", "delta")}))
    text = to_text(make_results(plan, records))
    assert "83.20 ± 0.26" in text
    assert "worse" in text
    assert "query_key" not in text
    assert "*" not in text


def test_files_go_to_the_folder_of_the_recipe(small_plan, records, tmp_path):
    results = make_results(small_plan, records)
    csv, markdown, _ = write_table(results, tmp_path)
    assert (csv, markdown) == (tmp_path / "tiny" / "small.csv", tmp_path / "tiny" / "small.md")
    assert markdown.read_text() == to_markdown(results)
    assert sorted(path.name for path in csv.parent.iterdir()) == ["small.csv", "small.md", "small.tex"]


def test_the_csv_holds_the_numbers_unrounded(small_plan, records, tmp_path):
    results = make_results(small_plan, records)
    csv, *_ = write_table(results, tmp_path)
    found = pd.read_csv(csv)
    assert tuple(found.columns) == list_columns(small_plan.spec)
    assert list(found["top1_mean"]) == list(results.frame["top1_mean"])
    assert found.loc[1, "holm_p"] == results.frame.loc[1, "holm_p"]


def test_results_under_set_are_kept_apart(small_spec, records, tmp_path):
    plan = make_plan(small_spec.model_copy(update={"overrides": ("training.lr=1e-3", "data.path=../x y")}))
    csv, markdown, _ = write_table(make_results(plan, records), tmp_path)
    assert csv.parent == tmp_path / "tiny+training.lr=1e-3+data.path=.._x_y"
    assert "`training.lr=1e-3`" in markdown.read_text()


def test_many_overrides_make_no_endless_name(small_spec, records, tmp_path):
    names = set()
    for last in ("1", "2"):
        overrides = (*(f"training.lr={number}" for number in range(50)), f"training.lr={last}")
        plan = make_plan(small_spec.model_copy(update={"overrides": overrides}))
        names.add(write_table(make_results(plan, records), tmp_path)[0].parent.name)
    assert len(names) == 2
    assert max(len(name) for name in names) < 120


def test_a_failed_write_leaves_the_old_file(small_plan, records, tmp_path, monkeypatch):
    results = make_results(small_plan, records)
    csv, markdown, _ = write_table(results, tmp_path)
    before = markdown.read_text()
    monkeypatch.setattr("harness.report.table.to_markdown", lambda *_args: "\ud800")
    with pytest.raises(UnicodeEncodeError):
        write_table(results, tmp_path)
    assert markdown.read_text() == before
    assert sorted(path.name for path in csv.parent.iterdir()) == ["small.csv", "small.md", "small.tex"]


def test_the_summary_says_how_large_the_models_are_whatever_rows_are_called(markdown):
    assert "2 epochs. Models: Swin, 137.0 k parameters (row Swin-T). Top-1 in percent" in markdown


def test_the_summary_says_what_was_changed(small_spec, records):
    plan = make_plan(small_spec.model_copy(update={"overrides": ("training.epochs=2",)}))
    assert "recipe `tiny with training.epochs=2`" in to_markdown(make_results(plan, records))
