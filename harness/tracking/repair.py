"""Repairs incomplete runs that an interruption or an earlier version has left without params.

Everything that identifies a run is kept more than once: in its params, in the tag `params`, in the artifact
`config.json`, in its name, in the run that it is a copy of, and in the call that it belongs to.
"""

from typing import TYPE_CHECKING

from harness.tracking.artifacts import Artifacts
from harness.tracking.translation import IDENTITY, read_params_tag, read_run_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PARENT_TAG = "mlflow.parentRunId"
KINDS = ("invocation", "run", "reused")


def is_ours(run: "Run") -> bool:
    """Whether the harness has made a run: others may use the same store."""
    tags = run.data.tags
    return tags.get("kind") in KINDS and ("experiment" if tags["kind"] == "invocation" else "cell_id") in tags


def find_missing_params(run: "Run", client: "MlflowClient", artifacts: Artifacts) -> dict[str, str]:
    """The params that a run lacks, as far as anything in the store says what they are; nothing is written."""
    wanted = ("command",) if run.data.tags.get("kind") == "invocation" else IDENTITY
    if all(name in run.data.params for name in wanted):
        return {}
    found = read_params_tag(run.data.tags)
    for read in (_read_own_facts, _read_config_facts, _read_source, _read_parent):
        if any(name not in found and name not in run.data.params for name in wanted):
            found = {**read(run, client, artifacts), **found}
    return {name: str(value) for name, value in found.items() if name not in run.data.params}


def find_run(client: "MlflowClient", run_id: str) -> "Run | None":
    """A run by its id; None where the store has none, or none any more."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _read_own_facts(run: "Run", _client: "MlflowClient", _artifacts: Artifacts) -> dict[str, str]:
    """Of a call its command, of a copy the row that shows it."""
    tags = run.data.tags
    if tags["kind"] == "invocation":
        return {"command": tags["mlflow.source.name"]} if "mlflow.source.name" in tags else {}
    return read_run_name(run.info.run_name or "") if tags["kind"] == "reused" else {}


def _read_config_facts(run: "Run", _client: "MlflowClient", artifacts: Artifacts) -> dict[str, str]:
    """From the file, which a copy does not have; else from the name."""
    if run.data.tags["kind"] == "invocation":
        return {}
    config = artifacts.read_config(run)
    facts = {name: str(config[name]) for name in IDENTITY if name in config}
    return {**read_run_name(run.info.run_name or ""), **facts}


def _read_source(run: "Run", client: "MlflowClient", artifacts: Artifacts) -> dict[str, str]:
    """From the run that a copy shows."""
    source = find_run(client, run.data.tags.get("reused_from", ""))
    return {} if source is None else {**find_missing_params(source, client, artifacts), **source.data.params}


def _read_parent(run: "Run", client: "MlflowClient", _artifacts: Artifacts) -> dict[str, str]:
    """The recipe, which a call and its runs share."""
    parent = find_run(client, run.data.tags.get(PARENT_TAG, ""))
    params = {} if parent is None else {**read_params_tag(parent.data.tags), **parent.data.params}
    return {"recipe": params["recipe"]} if "recipe" in params else {}
