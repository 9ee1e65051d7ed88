"""Converts the harness's values to MLflow's names and back: pure functions.

Params are what people group by: row, seed, recipe, levels. Tags are what they search for: `status`, `cell_id`. All that
is only read is in few tags, each a JSON object: `provenance` (digests, versions, device), `limits`, `process`. Earlier
versions wrote one tag for each of these values: `provenance.torch`, `limit.memory_limit_gb`, `process.pid`.

MLflow creates a run with its tags and writes its params later, so that the tag `params` holds them too.
"""

import json
import math
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.cell import FACTORS
from harness.credentials import hide_credentials
from harness.errors import Cause
from harness.plan import PlannedRun
from harness.record import EpochMetrics, Record, RunStatus
from harness.spec import ExperimentSpec
from harness.spec.data import DEFAULT_TASK
from harness.tracking.process import UNKNOWN, ProcessIdentity
from harness.tracking.record_files import PortableRun
from harness.tracking.system import PREFIX
from harness.tracking.tracker import LiveRun, StoredRun

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric, Run

STEPS = "train/steps"
"""A metric of the curve alone: optimizer steps done by the end of the epoch."""

IDENTITY = ("row", "seed", "recipe")
"""The params without which nobody knows what a run is a run of."""

PARAMS = "params"
"""The tag that holds all params of a run as JSON."""

MLFLOW_STATUS = {
    RunStatus.OK: "FINISHED",
    RunStatus.DIVERGED: "FAILED",
    RunStatus.OUT_OF_MEMORY: "FAILED",
    RunStatus.TIMED_OUT: "KILLED",
    RunStatus.FAILED: "FAILED",
    RunStatus.INTERRUPTED: "KILLED",
}
"""How MLflow's own list shows an outcome; the harness goes by the tag `status`."""

OUTCOME_TAGS = ("status", "status_detail", "status_step", "status_cause", "status_module")
"""The tags of `to_outcome_tags` that a run must not have while it is open."""

ORIGIN = "origin"
"""The tag of an imported run: its id in the store where it was trained."""

MAX_TAG_LENGTH = 5000
MAX_VALUE_LENGTH = 600
"""Of one value within a tag of JSON: MLflow cuts a tag at 8000 characters, and half a JSON document is none."""

EARLIER_PREFIXES = {"provenance": "provenance.", "limits": "limit.", "process": "process."}
"""What the tags of a single value began with, by the tag that has all of them today."""

MAX_DIGEST_LENGTH = 36


def to_run_name(run: PlannedRun) -> str:
    """The name of a run in MLflow's lists."""
    return f"{run.row.name} seed {run.seed}"


def read_run_name(name: str) -> dict[str, str]:
    """Row and seed from a run's name: all that identifies a run whose creation an earlier version left half done."""
    found = re.fullmatch(r"(.+) seed ([0-9]+)", name, re.DOTALL)
    return {} if found is None else {"row": found[1], "seed": found[2]}


def to_params_tag(params: Mapping[str, str]) -> dict[str, str]:
    """The tag that says what the params of a run will be."""
    return to_json_tag(PARAMS, params)


def to_json_tag(tag: str, values: Mapping[str, object]) -> dict[str, str]:
    """One tag for several values, as texts; none where there are none."""
    texts = {name: hide_credentials(str(value))[:MAX_VALUE_LENGTH] for name, value in values.items()}
    return {tag: json.dumps(texts, ensure_ascii=False)} if texts else {}


def read_json_tag(tag: str, tags: Mapping[str, str]) -> dict[str, str]:
    """The values of a tag of JSON, and those that an earlier version wrote one by one."""
    start = EARLIER_PREFIXES.get(tag, f"{tag}.")
    earlier = {name.removeprefix(start): value for name, value in tags.items() if name.startswith(start)}
    return earlier | {name: str(value) for name, value in read_object(tags.get(tag, "")).items()}


def is_of_process(tag: str) -> bool:
    """Whether a tag tells who executes a run."""
    return tag in ("process", "worker") or tag.startswith(EARLIER_PREFIXES["process"])


def read_params_tag(tags: Mapping[str, str]) -> dict[str, str]:
    """The params that a run was created with; empty for runs of earlier versions."""
    return read_object(tags.get(PARAMS, ""))


def read_object(text: str) -> dict[str, Any]:
    """A JSON object; empty where the text is damaged or is something else."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def is_identified(run: "Run") -> bool:
    """Whether a run says which row, seed and recipe it is of."""
    params = run.data.params
    return all(name in params for name in IDENTITY) and params["seed"].isdecimal()


def to_params(run: PlannedRun, spec: ExperimentSpec) -> dict[str, str]:
    """Row, seed, recipe and levels of a run."""
    factors = {name: level for name, level in run.row.cell.factors().items() if level}
    return {"row": run.row.name, "seed": str(run.seed), "recipe": spec.recipe.name, **factors}


def to_config(run: PlannedRun, spec: ExperimentSpec) -> dict[str, Any]:
    """The resolved config of a run: its cell with every default, what the run is one of, and what was solved."""
    solution = run.row.solution
    return {
        "experiment": spec.name,
        "recipe": spec.recipe.name,
        "overrides": list(spec.overrides),
        "row": run.row.name,
        "seed": run.seed,
        "cell_id": run.row.cell.id,
        **run.row.cell.to_dict(),
        "limits": spec.recipe.limits.model_dump(mode="json"),
        **({} if solution is None else {"solution": solution.describe()}),
    }


def to_start_tags(
    run: PlannedRun, spec: ExperimentSpec, provenance: Mapping[str, str], process: ProcessIdentity
) -> dict[str, str]:
    """What is known of a run before it starts."""
    limits = spec.recipe.limits.model_dump(exclude_none=True)
    return {
        "cell_id": run.row.cell.id,
        "experiment": spec.name,
        "title": spec.title,
        "overrides": json.dumps(spec.overrides, ensure_ascii=False),
        **to_source_tags(provenance),
        **to_process_tags(process),
        **to_json_tag("provenance", provenance),
        **to_json_tag("limits", limits),
    }


def read_overrides(tag: str) -> tuple[str, ...]:
    """The `--set` pairs of a run; an earlier version wrote them as a shell takes them, the first one without quotes."""
    try:
        stated = json.loads(tag)
    except ValueError:
        stated = None
    if isinstance(stated, list):
        return tuple(map(str, stated))
    try:
        return tuple(shlex.split(tag))
    except ValueError:  # an apostrophe that closes nothing
        return (tag,)


def to_source_tags(provenance: Mapping[str, str]) -> dict[str, str]:
    """The commit where MLflow shows it; an installed package has none."""
    commit = provenance.get("commit", "")
    return {"mlflow.source.git.commit": commit} if re.fullmatch("[0-9a-f]+", commit) else {}


def to_dataset(run: PlannedRun, provenance: Mapping[str, str]) -> "DatasetInput":
    """The images of a run, by name and as much of their digest as MLflow keeps."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = run.row.cell.data
    source = json.dumps({"family": data.name, "source": data.source})
    dataset = Dataset(data.name, provenance.get("data_digest", "")[:MAX_DIGEST_LENGTH], "elsa-ablation", source)
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "training, validation and test")])


def to_process_tags(process: ProcessIdentity) -> dict[str, str]:
    """The identity of the process that has a run open."""
    return to_json_tag("process", asdict(process))


def to_worker_tags(worker: ProcessIdentity) -> dict[str, str]:
    """The identity of a run's own process."""
    return to_json_tag("worker", asdict(worker))


def to_outcome_tags(record: Record) -> dict[str, str]:
    """How a run ended."""
    return {
        "status": record.status.value,
        "status_detail": record.status_detail[:MAX_TAG_LENGTH],
        **({} if record.step is None else {"status_step": str(record.step)}),
        **({} if record.cause is None else {"status_cause": record.cause.value}),
        **({} if not record.module else {"status_module": record.module}),
        **({} if record.task == DEFAULT_TASK else {"task": record.task}),
        **to_json_tag("provenance", record.provenance),
        **to_json_tag("limits", record.limits),
    }


def to_final_metrics(record: Record) -> dict[str, float]:
    """The final metrics that the last epoch has not already written: MLflow would keep both points.

    An interrupted run may go on: its curve gets no second value.
    """
    last = record.curve[-1].metrics if record.curve else {}
    known = last if record.status == RunStatus.INTERRUPTED else {}
    return {
        name: value
        for name, value in record.metrics.items()
        if name not in known and (name not in last or last[name] != value)
    }


def to_imported_tags(run: PortableRun) -> dict[str, str]:
    """What is known of a run that comes from another store, but for its outcome."""
    return {
        ORIGIN: run.origin,
        "cell_id": run.record.cell_id,
        "experiment": run.experiment,
        "title": run.title,
        "overrides": json.dumps(run.overrides, ensure_ascii=False),
        **to_source_tags(run.record.provenance),
    }


def to_imported_params(run: PortableRun) -> dict[str, str]:
    """Row, seed, recipe and levels of such a run."""
    return {"row": run.record.row, "seed": str(run.record.seed), "recipe": run.recipe, **run.levels}


def to_imported_metrics(run: PortableRun) -> "list[Metric]":
    """Its epochs and its final metrics, in the order of time: a final value follows that of the last epoch."""
    from mlflow.entities import Metric

    curve, ended = run.record.curve, round(1000 * run.record.end_time)
    begun = ended - len(curve) - 1
    points = [
        Metric(name, value, begun + epoch.epoch, epoch.epoch)
        for epoch in curve
        for name, value in {**epoch.metrics, STEPS: float(epoch.step)}.items()
    ]
    last = curve[-1].epoch if curve else 0
    return points + [Metric(name, value, ended, last) for name, value in to_final_metrics(run.record).items()]


def to_process(run: "Run") -> ProcessIdentity:
    """Which command had a run open; `UNKNOWN` where the tags do not say it."""
    return _read_process("process", run)


def to_worker(run: "Run") -> ProcessIdentity:
    """The run's own process; that of its command where the tags do not say it."""
    worker = _read_process("worker", run)
    return to_process(run) if worker == UNKNOWN else worker


def _read_process(tag: str, run: "Run") -> ProcessIdentity:
    process = read_json_tag(tag, run.data.tags)
    try:
        return ProcessIdentity(process["host"], int(process["pid"]), float(process["started"]))
    except (KeyError, ValueError):
        return UNKNOWN


def to_status(run: "Run") -> RunStatus | None:
    """How a run ended; None where nothing, or nothing known, is written.

    Where the tag is lost, only a run that was `ok` has its final metrics and is `FINISHED`.
    """
    status = run.data.tags.get("status")
    if status in set(RunStatus):
        return RunStatus(status)
    is_ok = run.info.status == "FINISHED" and "seconds" in run.data.metrics
    return RunStatus.OK if is_ok else None


def to_live_run(run: "Run") -> LiveRun:
    """A run that has not ended."""
    process = to_process(run)
    tags, params = run.data.tags, run.data.params
    return LiveRun(
        run.info.run_id, tags["cell_id"], params["row"], int(params["seed"]), host=process.host, pid=process.pid
    )


def to_stored_run(run: "Run", experiment: str) -> StoredRun:
    """A run as one finds it."""
    tags, params, process = run.data.tags, run.data.params, to_process(run)
    is_open = run.info.status == "RUNNING"
    return StoredRun(
        run_id=run.info.run_id,
        experiment=experiment,
        recipe=params["recipe"],
        overrides=read_overrides(tags.get("overrides", "[]")),
        cell_id=tags["cell_id"],
        row=params["row"],
        seed=int(params["seed"]),
        levels={name: params[name] for name in FACTORS if name in params},
        record=None if is_open or to_status(run) is None else to_record(run),
        is_live=is_open and not process.is_gone,
        started=(run.info.start_time or 0) / 1000,
        process=to_worker(run),
        reused_from=tags.get("reused_from", ""),
        origin=tags.get(ORIGIN, run.info.run_id),
        title=tags.get("title", ""),
    )


def to_record(run: "Run", curve: tuple[EpochMetrics, ...] = ()) -> Record:
    """An ended run; its metrics are the latest values of all that were written."""
    tags, params, status = run.data.tags, run.data.params, to_status(run)
    assert status is not None, "only an ended run is a record"
    detail, step = tags.get("status_detail", ""), tags.get("status_step")
    if status == RunStatus.DIVERGED and detail.isdecimal():  # older stores have the step alone, as the detail
        step, detail = detail, ""
    return Record(
        cell_id=tags["cell_id"],
        row=params["row"],
        seed=int(params["seed"]),
        status=status,
        metrics={
            name: _restore(value)
            for name, value in run.data.metrics.items()
            if name != STEPS and not name.startswith(PREFIX)
        },
        curve=curve,
        provenance=read_json_tag("provenance", tags),
        status_detail=detail,
        step=int(step) if step is not None and step.isdecimal() else None,
        cause=Cause(tags["status_cause"]) if tags.get("status_cause") in set(Cause) else None,
        module=tags.get("status_module", ""),
        limits={name: float(value) for name, value in read_json_tag("limits", tags).items()},
        run_id=run.info.run_id,
        end_time=(run.info.end_time or 0) / 1000,
        task=tags.get("task", DEFAULT_TASK),
    )


def to_curve(histories: Mapping[str, Sequence["Metric"]]) -> tuple[EpochMetrics, ...]:
    """The epochs of a run; of two values at one epoch the earlier is the epoch's, the later the final one."""
    epochs: dict[int, dict[str, float]] = {}
    for name, points in histories.items():
        for point in sorted(points, key=lambda point: point.timestamp):
            epochs.setdefault(point.step, {}).setdefault(name, _restore(point.value))
    return tuple(
        EpochMetrics(epoch, int(metrics.pop(STEPS)), metrics)
        for epoch, metrics in sorted(epochs.items())
        if STEPS in metrics
    )


def _restore(value: float) -> float:
    """MLflow stores an infinite number as the largest finite one."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value
