"""Keeps the rehearsals of cells: an MLflow experiment of their own, a run each.

They belong to no experiment of the harness: a cell that stands in two tables is rehearsed once. What decides, such as
the digest of the trace, is in the commit that creates a run.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.credentials import hide_credentials
from harness.files import temporary_folder
from harness.record import RunStatus
from harness.trace import Rehearsal
from harness.tracking.artifacts import Artifacts
from harness.tracking.process import ProcessIdentity
from harness.tracking.translation import MAX_TAG_LENGTH, MLFLOW_STATUS, read_object, to_json_tag, to_process_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "rehearsals"
TRACE_FILE = "trace.json"
KIND = "rehearsal"
FACTS = ("seed", "code_digest", "data_digest")


def write_rehearsal(
    rehearsal: Rehearsal, name: str, *, experiment_id: str, client: "MlflowClient", artifacts: Artifacts
) -> None:
    """Store one, called after its row."""
    from mlflow.entities import Metric

    facts = {fact: getattr(rehearsal, fact) for fact in FACTS}
    tags = {
        "kind": KIND,
        "rehearsed": rehearsal.cell_id,
        "trace": rehearsal.digest,
        "status": rehearsal.status.value,
        "status_detail": hide_credentials(rehearsal.detail)[:MAX_TAG_LENGTH],
        **to_json_tag(KIND, facts),
        **to_json_tag("environment", rehearsal.environment),
        **to_process_tags(ProcessIdentity.current()),
    }
    run_id = client.create_run(experiment_id, tags=tags, run_name=name).info.run_id
    metrics = [Metric(metric, value, 0, 0) for metric, value in rehearsal.metrics.items()]
    client.log_batch(run_id, metrics=metrics, synchronous=True)
    if rehearsal.trace:
        artifacts.log_text(run_id, json.dumps(rehearsal.trace), TRACE_FILE)
    if rehearsal.output:
        artifacts.log_text(run_id, hide_credentials(rehearsal.output), "error.txt")
    client.set_terminated(run_id, MLFLOW_STATUS[rehearsal.status])


def to_rehearsal(run: "Run") -> Rehearsal | None:
    """A stored one without its trace and output; None where it is damaged. Of a broken one metrics may be missing."""
    tags = run.data.tags
    facts, environment = read_object(tags.get(KIND, "")), read_object(tags.get("environment", ""))
    try:
        return Rehearsal(
            cell_id=tags["rehearsed"],
            seed=int(facts["seed"]),
            code_digest=facts["code_digest"],
            data_digest=facts["data_digest"],
            environment=environment,
            status=RunStatus(tags["status"]),
            detail=tags["status_detail"],
            digest=tags["trace"],
            metrics=dict(run.data.metrics),
        )
    except (KeyError, ValueError):
        return None


def read_trace(runs: "Sequence[Run]", artifacts: Artifacts) -> dict[str, Any]:
    """The trace that the first of some runs has kept; empty where none has."""
    for run in runs:
        if TRACE_FILE in artifacts.list_names(run):
            with temporary_folder() as folder:
                return read_object(artifacts.fetch(run, TRACE_FILE, folder).read_text(encoding="utf-8"))
    return {}
