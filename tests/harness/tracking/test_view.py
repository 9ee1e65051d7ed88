"""The address that `harness ui` prints, in a real store."""

import json

import pytest

from harness.errors import StoreError
from harness.tracking import MlflowTracker
from harness.tracking.view import VIEW_TAG


def test_an_experiment_has_its_view_and_its_address(tracking_uri: str) -> None:
    tracker = MlflowTracker(tracking_uri)
    assert tracker.find_page() == ""
    tracker.prepare("first")
    tracker.prepare("second")
    experiment = tracker._client.get_experiment_by_name("first")
    assert experiment is not None
    assert "params.`row`" in json.loads(experiment.tags[VIEW_TAG])["selectedColumns"]
    path = tracker.find_page("first")
    assert path.startswith(f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning")
    with pytest.raises(StoreError, match="did you mean 'second'"):
        tracker.find_page("secnd")


def test_a_view_that_somebody_has_removed_is_there_again(tracking_uri: str) -> None:
    tracker = MlflowTracker(tracking_uri)
    tracker.prepare("first")
    experiment_id = tracker._require_experiment("first")
    tracker._client.delete_experiment_tag(experiment_id, VIEW_TAG)
    tracker.find_page("first")
    assert VIEW_TAG in tracker._client.get_experiment(experiment_id).tags
