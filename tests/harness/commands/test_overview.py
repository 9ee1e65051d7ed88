import re

import pytest

from harness.commands.overview import describe_plan
from harness.execution.ledger import Entry, Standing
from harness.plan import Plan
from harness.record import Record, RunStatus


@pytest.fixture(scope="module")
def text(small_plan: Plan) -> str:
    """The first run is done, the second diverged under older code, the third failed, the others have no record."""
    statuses = {
        0: (Standing.DONE, RunStatus.OK),
        1: (Standing.STALE, RunStatus.DIVERGED),
        2: (Standing.TO_DO, RunStatus.FAILED),
    }
    entries = []
    for number, run in enumerate(small_plan.runs):
        standing, status = statuses.get(number, (Standing.TO_DO, None))
        record = None if status is None else Record(run.row.cell.id, run.row.name, run.seed, status, metrics={})
        entries.append(Entry(run, standing, record))
    return describe_plan(small_plan, entries)


def find_line(text: str, *beginning: str) -> list[str]:
    """The fields of the line that starts so."""
    lines = (re.split(r"\s{2,}", line.strip()) for line in text.splitlines())
    return next(line for line in lines if line[: len(beginning)] == list(beginning))


def test_every_row_has_its_cell_and_its_cost(text: str, small_plan: Plan) -> None:
    for row in small_plan.rows:
        assert find_line(text, row.name)[1] == row.cell.id
    assert find_line(text, "Linear classifier")[2:4] == ["7,850", "7,840"]


def test_every_replicate_has_its_standing(text: str) -> None:
    assert find_line(text, "Swin-T")[4:] == ["done", "to do", "to do"]
    assert find_line(text, "Net1")[4:] == ["stale (diverged)", "to do", "to do"]
    assert find_line(text, "Net7-N")[4:] == ["to do (failed)", "to do", "to do"]


def test_every_stage_has_its_map_and_what_its_queries_see(text: str) -> None:
    assert find_line(text, "1", "14x14", "Ω 7x7 local_window")[3:] == ["off", "100.0 %", "Swin-T, Net1"]
    shift, inside, rows = find_line(text, "1", "14x14", "Θ 7x7 sliding_window")[3:]
    assert (shift, rows) == ("off", "Net7-N")
    assert 50 < float(inside.removesuffix(" %")) < 100


def test_a_window_that_holds_the_map_is_warned_of_once(text: str) -> None:
    assert find_line(text, "2", "7x7")[2:] == ["Ω 7x7 local_window, global", "off", "100.0 %", "all"]
    assert text.count("warning") == 1
    assert "stage 2: Ω is global" in text


def test_the_remaining_runs_are_counted(text: str) -> None:
    assert text.endswith("15 runs: 1 done, 1 stale, 13 to do; `harness run` would train 14")
