from dataclasses import replace

import pytest

from harness.report.latex import to_latex
from harness.table import make_results


def read_lines(latex: str) -> list[list[str]]:
    body = latex[latex.index(r"\toprule") :]
    return [line.removesuffix(r" \\").split(" & ") for line in body.splitlines() if line.endswith(r" \\")]


def test_the_table_has_the_columns_that_the_experiment_asks_for_in_one_order(small_plan, records) -> None:
    spec = small_plan.spec.model_copy(update={"columns": ("parameterization", "params", "delta", "top1")})
    head, first, *_ = read_lines(to_latex(make_results(replace(small_plan, spec=spec), records)))
    assert head == [
        *("row", r"\multicolumn{2}{c}{top-1, \%}", r"\multicolumn{2}{c}{$\Delta$ [95\,\%]}", "verdict"),
        *("$qk$", "$qr^k$", "$r^qk$", "$r^b$", "params"),
    ]
    assert first == [
        *("Swin-T", "$84.17$", r" $\pm$ 0.21", "---", "", "---"),
        *(r"$\surd$", "", "", r"$\surd$", "137.0 k"),
    ]


def test_numbers_are_split_where_they_are_aligned(small_plan, records) -> None:
    latex = to_latex(make_results(small_plan, records))
    assert r"\begin{tabular}{lr@{}lr@{ }llrrr}" in latex
    assert r"Net1 & $83.20$ &  $\pm$ 0.26 & $-0.97$ & [$-1.57$, $-0.37$] & \textbf{worse}" in latex


def test_the_caption_says_replicates_interval_and_test(small_plan, records) -> None:
    latex = to_latex(make_results(small_plan, records))
    caption = next(line for line in latex.splitlines() if line.startswith(r"\caption"))
    for told in (
        "n = 3 seeds",
        r"simultaneous 95 \% interval",
        "Dunnett's step-down test over 2 comparisons",
        "Swin-T",
    ):
        assert told in caption


def test_replicates_are_a_column_where_some_are_missing(small_plan, records) -> None:
    latex = to_latex(make_results(small_plan, records[:-1]))
    assert "$n$" in read_lines(latex)[0]
    assert "n of 3 seeds" in latex


@pytest.mark.parametrize("columns", [("params",), ("top1",), ("top1", "delta", "curve", "throughput")])
def test_every_line_has_as_many_cells_as_the_table_has_columns(small_plan, records, columns) -> None:
    spec = small_plan.spec.model_copy(update={"columns": columns})
    latex = to_latex(make_results(replace(small_plan, spec=spec), records))
    head, *lines = [line for line in read_lines(latex) if "floors" not in line[0]]
    width = sum(2 if "multicolumn" in title else 1 for title in head)
    assert {len(line) for line in lines} == {width}


def test_a_row_never_becomes_an_option_of_the_line_before(small_plan, records) -> None:
    results = make_results(small_plan, records)
    renamed = replace(results, frame=results.frame.replace({"row": {"Net1": "[Net1]"}}))
    assert "\n{}[Net1] & " in to_latex(renamed)
