from dataclasses import replace

import pytest
from mlflow import MlflowClient

from harness.record import RunStatus
from harness.trace import Rehearsal, digest_trace
from harness.tracking import MlflowTracker
from harness.tracking.rehearsals import EXPERIMENT

TRACE = {"steps": [1, 20, 16], "epochs": {"1": {"val/top1": 12.3}}}
REHEARSAL = Rehearsal(
    "cell",
    seed=1,
    code_digest="code",
    data_digest="data",
    environment={"torch": "2.14", "kernels": "cpu"},
    digest=digest_trace(TRACE),
    trace=TRACE,
    metrics={"seconds": 12.5, "peak_memory_gb": 0.5, "took": 2.0},
)


@pytest.fixture
def tracker(tracking_uri: str) -> MlflowTracker:
    tracker = MlflowTracker(tracking_uri)
    tracker.prepare("two")
    return tracker


def test_a_rehearsal_is_read_as_it_was_written_and_its_trace_on_request(tracker: MlflowTracker) -> None:
    assert tracker.read_rehearsals(["cell"]) == []
    failed = replace(REHEARSAL, status=RunStatus.FAILED, detail="no such level", digest="", trace={}, metrics={})
    for rehearsal in (REHEARSAL, failed):
        tracker.log_rehearsal(rehearsal, "Swin-T")
    assert tracker.read_rehearsals(["cell", "another"]) == [failed, replace(REHEARSAL, trace={})]
    assert tracker.read_trace("cell", REHEARSAL.digest) == TRACE
    assert tracker.read_trace("cell", "1:another") == tracker.read_trace("another", REHEARSAL.digest) == {}


@pytest.mark.parametrize(("tag", "value"), [("status", "green"), ("rehearsal", "{"), ("rehearsal", "{}")])
def test_a_damaged_rehearsal_is_none(tracker: MlflowTracker, tag: str, value: str) -> None:
    tracker.log_rehearsal(REHEARSAL, "Swin-T")
    client = MlflowClient(tracker.store.uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id])
    client.set_tag(run.info.run_id, tag, value)
    assert tracker.read_rehearsals(["cell"]) == []


def test_rehearsals_are_neither_runs_nor_the_experiment_that_is_shown(tracker: MlflowTracker) -> None:
    tracker.log_rehearsal(REHEARSAL, "Swin-T")
    assert tracker.find_runs() == tracker.ledger(["cell"]) == tracker.running_elsewhere() == []
    experiment = MlflowClient(tracker.store.uri).get_experiment_by_name("two")
    assert f"/{experiment.experiment_id}/" in f"{tracker.find_page()}/"
