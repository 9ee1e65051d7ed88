import pytest

from harness.errors import Cause
from harness.record import RunStatus
from harness.report.markdown import to_markdown
from harness.table import make_results
from harness.table.reason import describe_outcome, explain, find_cause


@pytest.fixture
def make_measured(make_record):
    """A good run whose last validation was right so often."""

    def make(name: str, seed: int, top1: float, *, images: int = 1000, classes: int = 10):
        record = make_record(name, seed)
        measured = {"val/top1": top1, "val/images": float(images), "val/chance": 100 / classes}
        return make_record(name, seed, metrics={**record.metrics, **measured})

    return make


def test_a_run_at_chance_says_so_with_its_numbers(make_measured) -> None:
    record = make_measured("Net1", 0, 10.4)
    assert find_cause(record) == "chance"
    assert describe_outcome(record) == ("at chance: 10.4 % of 1,000 validation images are right, guessing gets 10 %")


@pytest.mark.parametrize(("top1", "images", "classes"), [(100.0, 4, 2), (75.0, 4, 2), (0.0, 4, 2), (18.0, 1000, 10)])
def test_few_images_or_some_learning_are_not_called_chance(make_measured, top1, images, classes) -> None:
    assert explain(make_measured("Net1", 0, top1, images=images, classes=classes)) == ""


@pytest.mark.parametrize(
    ("status", "changes", "text"),
    [
        (RunStatus.OK, {}, "ok"),
        (
            RunStatus.DIVERGED,
            {"step": 412, "status_detail": "the training loss is nan"},
            "diverged at step 412: the training loss is nan",
        ),
        (
            RunStatus.DIVERGED,
            {"step": 7, "status_detail": "a weight is not finite", "cause": Cause.WEIGHT, "module": "layers.0.attn"},
            "diverged at step 7: a weight is not finite, first in layers.0.attn",
        ),
        (RunStatus.OUT_OF_MEMORY, {"limits": {"memory_limit_gb": 2.0}}, "out of memory: memory_limit_gb 2"),
        (RunStatus.TIMED_OUT, {"limits": {"time_limit_minutes": 0.5}}, "timed out: time_limit_minutes 0.5"),
        (RunStatus.FAILED, {"status_detail": "KeyError: 'x'\nmore"}, "failed: KeyError: 'x'"),
    ],
    ids=lambda value: value.value if isinstance(value, RunStatus) else None,
)
def test_every_outcome_has_its_reason(make_record, status, changes, text) -> None:
    assert describe_outcome(make_record("Net1", 0, status, **changes)) == text


def test_a_run_at_chance_stays_a_measurement_and_is_marked_and_explained(small_plan, records, make_measured) -> None:
    kept = [record for record in records if (record.row, record.seed) != ("Net1", 1)]
    plan_records = [*kept, make_measured("Net1", 1, 9.8)]
    results = make_results(small_plan, plan_records)
    frame = results.frame.set_index("row")
    assert (frame.loc["Net1", "n"], frame.loc["Net1", "outcomes"]) == (3, ())
    assert frame.loc["Net1", "marks"] == ("at chance",)
    markdown = to_markdown(results)
    assert "`at chance`: the last validation of a run looks like guessing" in markdown
    assert "Net1: seed 1 at chance: 9.8 % of 1,000 validation images are right, guessing gets 10 %" in markdown
