"""A score to minimize: everything that one to maximize says, the other way round."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from timm.task import TrainingTask
from torch import nn

from harness.commands.progress import describe_end, describe_epoch
from harness.errors import SpecError
from harness.execution import RunEnded
from harness.measure import Measure
from harness.plan import Plan, make_plan
from harness.ranks import Ranks
from harness.reading import load_spec
from harness.record import EpochMetrics, Record
from harness.report.figures.size import draw_sizes
from harness.report.markdown import to_markdown
from harness.spec import BetterSpec, DataSpec, PublishedSpec, TrainingSpec
from harness.table.results import make_results
from harness.tasks import TASKS, Evaluation, Task, find_measure, list_measures
from harness.tasks.classification import TOP1, TOP5

MISSES = Measure("misses", "misses", "mm", "lower", chance=90.0, ceiling=0.0, relevant_gain=0.2)


class _Counting(Task):
    """Its one measure is 100 less top-1."""

    measures = (MISSES,)

    def count_outputs(self, _data: DataSpec) -> int:
        return 1

    def build_objective(self, _model: nn.Module, _training: TrainingSpec, _device: torch.device) -> TrainingTask:
        raise NotImplementedError

    def evaluate(self, _model: nn.Module, _batches: Iterable[object], _ranks: Ranks) -> Evaluation:
        raise NotImplementedError


@pytest.fixture
def mirrored(small_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The small plan by the other measure, with a claim."""
    monkeypatch.setitem(TASKS, "counting", _Counting())
    return make_plan(_change(small_plan, task="counting", published={"Net1": PublishedSpec(misses=19.9)}))


def _change(plan: Plan, *, task: str = "classification", **changes: object):
    data = plan.spec.recipe.data.model_copy(update={"task": task})
    recipe = plan.spec.recipe.model_copy(update={"data": data})
    claims = (BetterSpec(better=("Net7-N", "Net1")),)
    return plan.spec.model_copy(update={"recipe": recipe, "claims": claims, **changes})


def _mirror(record: Record, plan: Plan) -> Record:
    cell = next(row.cell for row in plan.rows if row.name == record.row)
    metrics = dict(record.metrics)
    metrics["test/misses"], metrics["val/misses"] = 100 - metrics.pop("test/top1"), 100 - metrics.pop("val/top1")
    curve = [EpochMetrics(e.epoch, e.step, {"val/misses": 100 - e.metrics["val/top1"]}) for e in record.curve]
    return replace(record, cell_id=cell.id, metrics=metrics, curve=tuple(curve), task="counting")


def test_verdicts_claims_and_marks_are_mirrored(small_plan: Plan, mirrored: Plan, records: list[Record]) -> None:
    plan, twins = make_plan(_change(small_plan)), [_mirror(record, mirrored) for record in records]
    results, mirror = make_results(plan, records), make_results(mirrored, twins)
    frame, twin = results.frame, mirror.frame
    assert list(twin["verdict"]) == list(frame["verdict"])
    assert "worse" in set(frame["verdict"])
    assert list(twin["marks"]) == list(frame["marks"])
    assert twin["delta"].tolist() == pytest.approx((-frame["delta"]).tolist(), nan_ok=True)
    claims, twin_claims = results.findings.claims.frame, mirror.findings.claims.frame
    assert list(twin_claims["verdict"]) == list(claims["verdict"]) == ["supported"]
    assert "is not above them" not in to_markdown(mirror) + to_markdown(results)


def test_every_output_has_the_name_and_the_unit_of_the_measure(mirrored: Plan, records: list[Record]) -> None:
    twins = [_mirror(record, mirrored) for record in records]
    markdown = to_markdown(make_results(mirrored, twins))
    assert "| misses, mm " in markdown
    assert "Misses in mm on " in markdown
    assert "top" not in markdown.lower()
    measure = find_measure(mirrored.spec)
    assert "test misses 16.00 mm, took" in describe_end(RunEnded(mirrored.runs[0], twins[0]), measure)
    epoch = EpochMetrics(1, 1, {"val/misses": 9.5, "train/loss": 1.0})
    assert describe_epoch(epoch, measure) == "val misses  9.50 mm, train loss 1.000"
    figure = draw_sizes(make_results(mirrored, twins, current={}))
    assert figure.axes[0].get_ylabel() == "misses, mm"


def test_a_run_that_is_no_better_than_guessing_is_at_chance(mirrored: Plan, records: list[Record]) -> None:
    measured = {"val/misses": 90.0, "val/images": 50.0, "val/chance": 90.0}
    twins = [_mirror(record, mirrored) for record in records]
    twins[1] = replace(twins[1], metrics={**twins[1].metrics, **measured})
    frame = make_results(mirrored, twins).frame.set_index("row")
    assert "at chance" in frame.loc[twins[1].row, "marks"]
    assert (
        "90.00 mm on 50 validation images, guessing gets 90.00 mm" in frame.loc[twins[1].row, "reasons"][twins[1].seed]
    )


def test_an_experiment_names_what_decides(small_plan: Plan, records: list[Record]) -> None:
    spec = small_plan.spec.model_copy(update={"measure": "top5", "columns": ("top1", "top5", "delta")})
    assert [measure.name for measure in list_measures(spec)] == [TOP5.name, TOP1.name]
    assert find_measure(spec).chance == 50
    plan = make_plan(spec)
    assert [row.cell.id for row in plan.rows] == [row.cell.id for row in small_plan.rows]
    results = make_results(plan, records)
    frame = results.frame.set_index("row")
    assert frame.loc["Net1", "delta"] == 0
    assert frame.loc["Net1", "top1_mean"] == pytest.approx(83.2)
    assert "| top-5, % " in to_markdown(results)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("measure=top-1", "--set measure=top-1: measure: unknown measure 'top-1'; did you mean 'top1'?"),
        ("columns=[top-1]", "columns.0: unknown column 'top-1'; did you mean 'top1'?"),
        ("data.task=clasification", "unknown task 'clasification'; did you mean 'classification'?"),
        ("published.Net1.top_1=80.0", "published.Net1.top_1: unknown key 'top_1'; did you mean 'top1'?"),
    ],
)
def test_an_unknown_measure_or_task_has_its_place_and_the_nearest_name(override: str, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        load_spec("table1", recipe="smoke", overrides=[override])
    assert message in str(raised.value)


def test_a_task_without_classes_refuses_what_its_loss_would_ignore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "counting", _Counting())
    with pytest.raises(SpecError, match=r"data\.task: training\.smoothing needs a task with classes, got 0\.1"):
        load_spec("table1", recipe="smoke", overrides=["data.task=counting", "training.smoothing=0.1"])
