import math
import re
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest

from harness.commands.overview import describe_plan, to_plain
from harness.commands.progress import to_clock
from harness.commands.published import describe_published
from harness.costs import measure_cost
from harness.division import divide_batch
from harness.execution.ledger import Entry, Standing
from harness.plan import Plan, PlannedRun, make_plan
from harness.reading import load_recipe, load_spec
from harness.record import Record, RunStatus
from harness.shapes import Shape, measure_shape
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
        cell_id = run.row.cell.id
        standing, status = statuses.get(number, (Standing.TO_DO, None))
        record = None if status is None else Record(cell_id, run.row.name, run.seed, status, metrics={}, run_id="1")
        entries.append(Entry(run, standing, record))
    return describe_plan(small_plan, entries, {}, find(small_plan))


measure = cache(measure_shape)


def find(plan: Plan) -> dict[str, Shape]:
    return {row.cell.id: measure(row.cell) for row in plan.rows}


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
    assert "Again is the placebo: the baseline, Swin-T, with seeds from 1000 on" in describe_plan(
        plan, entries, {}, find(plan)
    )
    shown = {row["row"]: row for row in to_plain(plan, entries, {}, find(plan))["rows"]}
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
    assert f"forecast: {to_clock(seconds)} for all runs, up to 0.5 GB" in describe_plan(
        plan, missing, rehearsals, find(plan)
    )
    measured = {"seconds": 10.0}
    first = plan.runs[0]
    record = Record(first.row.cell.id, first.row.name, first.seed, RunStatus.OK, metrics=measured)
    known = to_plain(plan, [Entry(first, Standing.ATTESTED, record), *missing[1:]], rehearsals, find(plan))
    assert known["forecast"]["seconds"] < seconds - 60
    assert to_plain(plan, missing, {}, find(plan))["forecast"] is None


def test_runs_that_only_the_record_file_has_are_counted(small_plan: Plan, text: str) -> None:
    run = small_plan.runs[0]
    unstored = Record(run.row.cell.id, run.row.name, run.seed, RunStatus.OK, metrics={})
    entries = [Entry(run, Standing.DONE, unstored), *(Entry(run, Standing.TO_DO, None) for run in small_plan.runs[1:])]
    told = "1 run only in the record file, not in the store; `harness run` imports them"
    assert told in describe_plan(small_plan, entries, {}, find(small_plan)).splitlines()
    assert "record file" not in text


def test_results_of_older_code_are_explained(small_plan: Plan) -> None:
    standings = [(Standing.ATTESTED, ""), (Standing.UNATTESTED, "made with torch 2.8")]
    entries = [
        Entry(run, standing, Record(run.row.cell.id, run.row.name, run.seed, RunStatus.OK, metrics={}), why)
        for run, (standing, why) in zip(small_plan.runs, standings, strict=False)
    ]
    text = describe_plan(small_plan, entries, {}, find(small_plan))
    assert "attested: code has changed since, and a rehearsal" in text
    assert "unattested: code has changed since 1 run, made with torch 2.8" in text


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"device_batch_size": 128},
            "a step of 1,024 images: 8 processes if there are as many GPUs; on one GPU, 8 micro-batches",
        ),
        ({"device_batch_size": 128, "processes": 2}, "a step of 1,024 images: 4 micro-batches in each of 2 processes"),
        ({"processes": 4}, "a step of 1,024 images: 1 micro-batch in each of 4 processes"),
    ],
)
def test_the_processes_of_a_run_are_shown(small_plan: Plan, changes: dict[str, int], line: str) -> None:
    training = small_plan.spec.recipe.training.model_copy(update={"batch_size": 1024})
    recipe = small_plan.spec.recipe.model_copy(update={"training": training, **changes})
    plan = make_plan(small_plan.spec.model_copy(update={"recipe": recipe}))
    assert line in describe_plan(plan, [], {}, find(plan)).splitlines()
    wanted = divide_batch(1024, num_gpus=1024, **{"device_batch_size": None, **changes})
    assert all(row["division"] == asdict(wanted) for row in to_plain(plan, [], {}, find(plan))["rows"])


def test_the_papers_recipe_has_an_estimate_for_eight_gpus_and_what_to_type() -> None:
    """987 images/s on each of eight: 1,281,167 images in 310 epochs of 4.5 billion multiply-adds take 14 h."""
    plan = make_plan(load_spec(Path("table1"), recipe="imagenet"))
    (text,) = describe_published(plan, [run for run in plan.runs if run.row.name == "Swin-T"], find(plan))
    (hours,) = map(float, re.findall(r"([\d.]+) h a run", text))
    macs = measure_cost(plan.rows[0].cell)["macs"]
    assert hours == pytest.approx(1_281_167 * 310 / (8 * 987) / 3600 * macs / 4.5e9, abs=0.06)
    assert text.splitlines()[-1].endswith("table1.yaml --recipe imagenet --data DIR")
    laptop = make_plan(load_spec(Path("table1")))
    assert list(describe_published(laptop, laptop.runs, find(laptop))) == []
