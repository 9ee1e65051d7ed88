import pytest

from harness.execution.open_run import Measured, Opened, OpenRun
from harness.plan import Plan
from harness.record import EpochMetrics, RunStatus
from harness.spec import LimitsSpec


def make_epoch(epoch: int, speed: float) -> EpochMetrics:
    return EpochMetrics(epoch, 10 * epoch, {"val/top1": 10.0 * epoch, "train/images_per_second": speed})


@pytest.fixture
def open_run(small_plan: Plan) -> OpenRun:
    run = OpenRun(small_plan.runs[0], LimitsSpec(memory_limit_gb=2), {"commit": "abc"}, "run id")
    for note in (
        Opened({"commit": "abc", "device": "GPU"}, continues=False),
        Measured({"params": 7.0}),
        *(make_epoch(epoch, speed) for epoch, speed in ((1, 10.0), (2, 100.0), (3, 90.0))),
    ):
        run.add(note)
    return run


def test_a_record_has_whatever_was_reached(open_run: OpenRun) -> None:
    record = open_run.to_record(RunStatus.FAILED, "the reason")
    assert (record.row, record.seed, record.status, record.status_detail) == (
        "Swin-T",
        0,
        RunStatus.FAILED,
        "the reason",
    )
    assert record.metrics["params"] == 7.0
    assert record.metrics["val/top1"] == 30.0
    assert [epoch.epoch for epoch in record.curve] == [1, 2, 3]
    assert record.run_id == "run id"
    assert record.provenance["device"] == "GPU"
    assert record.limits == {"memory_limit_gb": 2.0}


def test_the_speed_is_the_median_epochs(open_run: OpenRun) -> None:
    assert open_run.to_record(RunStatus.OK).metrics["train/images_per_second"] == 90.0


def test_a_run_that_reached_nothing_has_its_seconds_alone(small_plan: Plan) -> None:
    record = OpenRun(small_plan.runs[0], LimitsSpec(), {}).to_record(RunStatus.TIMED_OUT)
    assert set(record.metrics) == {"seconds"}
    assert record.curve == ()
