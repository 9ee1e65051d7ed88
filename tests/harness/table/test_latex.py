from harness.table import make_table
from harness.table.display import to_display
from harness.table.latex import escape, to_latex


def test_every_row_has_the_cells_of_the_display(small_plan, records) -> None:
    frame = make_table(small_plan, records)
    latex = to_latex(frame, small_plan.spec)
    head, *rows = [line.removesuffix(r" \\").split(" & ") for line in latex.splitlines() if line.endswith(r" \\")]
    display = to_display(frame, small_plan.spec)
    assert head == [escape(title) for title in display.columns]
    assert [row[0] for row in rows] == [escape(name) for name in display["row"][:3]] + [
        r"\textit{floors:}",
        "Linear classifier",
        "One hidden layer",
    ]
    assert {len(row) for row in rows} == {len(head)}
    assert r"\textbf{worse}" in rows[1]


def test_what_latex_would_take_for_a_command_is_printed() -> None:
    assert escape(r"50% & a_b \n $x$ #1 {y} ~^") == (
        r"50\% \& a\_b \textbackslash{}n \$x\$ \#1 \{y\} \textasciitilde{}\textasciicircum{}"
    )
    assert escape("Δ ± 2×") == r"$\Delta$ $\pm$ 2$\times$"


def test_a_row_never_becomes_an_option_of_the_line_before(small_plan, records) -> None:
    frame = make_table(small_plan, records).replace({"row": {"Net1": "[Net1]"}})
    assert "\n{}[Net1] & " in to_latex(frame, small_plan.spec)
