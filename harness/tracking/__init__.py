"""The store of runs: the `Tracker` protocol and MLflow behind it. MLflow is imported when it is used."""

from harness.tracking.artifacts import PREDICTIONS
from harness.tracking.mlflow_tracker import MlflowTracker
from harness.tracking.store import default_tracking_uri
from harness.tracking.tracker import LiveRun, RunDetails, StoredRun, Tracker, locked

__all__ = [
    "PREDICTIONS",
    "LiveRun",
    "MlflowTracker",
    "RunDetails",
    "StoredRun",
    "Tracker",
    "default_tracking_uri",
    "locked",
]
