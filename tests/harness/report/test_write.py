import re

from harness.plan import make_plan
from harness.report.write import write_report
from harness.table.results import make_results


def test_whatever_the_markdown_shows_is_written_beside_it(small_spec, records, tmp_path) -> None:
    plan = make_plan(small_spec.model_copy(update={"plots": ("curve", "delta")}))
    files = write_report(make_results(plan, records, current={}), tmp_path)
    folder = tmp_path / "tiny"
    assert sorted(files) == sorted(folder.iterdir())
    assert {path.suffix for path in files} == {".csv", ".md", ".tex", ".html", ".png", ".svg"}
    shown = re.findall(r"!\[.+?\]\((.+?)\)", (folder / "small.md").read_text())
    assert shown == ["small-curve.png", "small-delta.png"]
    assert {folder / name for name in shown} <= set(files)
