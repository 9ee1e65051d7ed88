import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness.execution import read_results
from harness.plan import make_plan
from harness.reading import load_spec
from harness.record import RunStatus
from harness.report.latex import to_latex
from harness.table import make_results
from harness.tracking import MlflowTracker

RESULTS = Path(__file__).parents[3] / "results"


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
        *("Swin-T", r"\textbf{84.17}", r" $\pm$ 0.21", "---", "", "---"),
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


def test_the_best_mean_and_those_that_cannot_be_separated_from_it_are_bold(small_plan, records) -> None:
    latex = to_latex(make_results(small_plan, records))
    bold = {line[0] for line in read_lines(latex)[1:] if len(line) > 1 and line[1].startswith(r"\textbf")}
    assert bold == {"Swin-T", "Net7-N"}  # Net1 is a point below both
    assert "bold means are the best" in latex
    assert r"\textbf{8" not in to_latex(make_results(small_plan, [run for run in records if run.seed == 0]))


def test_marks_are_footnotes(small_plan, records) -> None:
    old = {"end_time": 0.0, "status": RunStatus.INTERRUPTED}
    changed = [replace(run, **old) if (run.row, run.seed) == ("Net1", 2) else run for run in records]
    latex = to_latex(make_results(small_plan, changed))
    assert "Net1$^{a}$ & " in latex
    assert "$^{a}$~some of the planned replicates have no result yet." in latex
    assert "^{a}" not in to_latex(make_results(small_plan, records))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_latex_sets_every_committed_table(tmp_path: Path) -> None:
    tracker = MlflowTracker(f"sqlite:///{tmp_path / 'mlflow.db'}")
    tables = []
    for path in sorted((RESULTS / "laptop" / "runs").glob("*.jsonl")):
        plan = make_plan(load_spec(path.stem, recipe="laptop"))
        tables.append(to_latex(read_results(plan, tracker, {}, RESULTS)))
    document = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}", *tables, r"\end{document}"]
    (tmp_path / "tables.tex").write_text("\n".join(document))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    wide = [float(width) for width in re.findall(r"Overfull \\hbox \(([\d.]+)pt", done.stdout)]
    assert max(wide, default=0.0) < 150, done.stdout
