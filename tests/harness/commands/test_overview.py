import math
import re

import pytest

from harness.commands.overview import describe_plan, to_plain
from harness.commands.progress import to_clock
from harness.execution.ledger import Entry, Standing
from harness.plan import Plan, PlannedRun, make_plan
from harness.reading import load_recipe
from harness.record import Record, RunStatus
from harness.spec import RowSpec
from harness.trace import Rehearsal


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
    return describe_plan(small_plan, entries, {})


def rehearse(run: PlannedRun, seconds: float) -> Rehearsal:
    metrics = {"seconds": seconds, "peak_memory_gb": 0.5}
    return Rehearsal(run.row.cell.id, run.seed, "code", "data", {}, digest="1:a", metrics=metrics)


def find_line(text: str, *beginning: str) -> list[str]:
    """The fields of the line that starts so."""
    lines = (re.split(r"\s{2,}", line.strip()) for line in text.splitlines())
    return next(line for line in lines if line[: len(beginning)] == list(beginning))


def test_every_row_has_its_cell_and_its_cost(text: str, small_plan: Plan) -> None:
    for row in small_plan.rows:
        assert find_line(text, row.name)[1] == row.cell.id
    assert find_line(text, "Linear classifier")[2:4] == ["7,850", "7,840"]


def test_a_placebo_is_explained_with_its_seeds(small_plan: Plan) -> None:
    rows = {**small_plan.spec.rows, "Again": RowSpec(placebo=True)}
    plan = make_plan(small_plan.spec.model_copy(update={"rows": rows}))
    entries = [Entry(run, Standing.TO_DO, None) for run in plan.runs]
    assert "Again is the placebo: the baseline, Swin-T, with seeds from 1000 on" in describe_plan(plan, entries, {})
    shown = {row["row"]: row for row in to_plain(plan, entries, {})["rows"]}
    assert [run["seed"] for run in shown["Again"]["runs"]] == [1000, 1001, 1002]
    assert [name for name, row in shown.items() if row["is_placebo"]] == ["Again"]


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
    counted, advice = text.splitlines()[-2:]
    assert counted == "15 runs: 1 done, 1 stale, 13 to do; `harness run` would train 14"
    assert advice == "`harness rehearse` forecasts time and memory"


def test_rehearsals_forecast_what_is_missing_and_results_know_better(small_plan: Plan) -> None:
    plan = make_plan(small_plan.spec.model_copy(update={"recipe": load_recipe("laptop")}))
    rehearsals = {run.row.cell.id: rehearse(run, 60) for run in plan.runs}
    missing = [Entry(run, Standing.TO_DO, None) for run in plan.runs]
    seconds = 60 * math.ceil(len(plan.runs) / plan.spec.recipe.workers)
    assert f"forecast: {to_clock(seconds)} for all runs, up to 0.5 GB" in describe_plan(plan, missing, rehearsals)
    measured = {"seconds": 10.0}
    first = plan.runs[0]
    record = Record(first.row.cell.id, first.row.name, first.seed, RunStatus.OK, metrics=measured)
    known = to_plain(plan, [Entry(first, Standing.ATTESTED, record), *missing[1:]], rehearsals)
    assert known["forecast"]["seconds"] < seconds - 60
    assert to_plain(plan, missing, {})["forecast"] is None


def test_results_of_older_code_are_explained(small_plan: Plan) -> None:
    standings = [(Standing.ATTESTED, ""), (Standing.UNATTESTED, "made with torch 2.8")]
    entries = [
        Entry(run, standing, Record(run.row.cell.id, run.row.name, run.seed, RunStatus.OK, metrics={}), why)
        for run, (standing, why) in zip(small_plan.runs, standings, strict=False)
    ]
    text = describe_plan(small_plan, entries, {})
    assert "attested: code has changed since, and a rehearsal" in text
    assert "unattested: code has changed since 1 run, made with torch 2.8" in text
