"""The MLflow tracker: one MLflow experiment per YAML file, a parent run per call, a child run per run.

The tag `kind` tells MLflow runs apart: `invocation`, `run`, and `reused`, a light copy that the ledger leaves out.
Rehearsals and claims have experiments of their own. MLflow's step is the epoch.
"""

import json
import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property, partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from harness.credentials import hide_credentials
from harness.errors import StoreError
from harness.files import temporary_folder, write_arrays
from harness.measure import Measure
from harness.plan import PlannedRun
from harness.record import EpochMetrics, Record, RunStatus
from harness.spec import ExperimentSpec
from harness.tasks import DEFAULT_MEASURE
from harness.text import escape_markdown
from harness.trace import Rehearsal
from harness.tracking.artifacts import CONFIG, PREDICTIONS, Artifacts
from harness.tracking.claims import EXPERIMENT as CLAIMS
from harness.tracking.claims import Claims, remove_claim
from harness.tracking.patience import Patience, Patient, disable_mlflow_retries
from harness.tracking.process import ProcessIdentity
from harness.tracking.record_files import Arrays, PortableRun, read_arrays
from harness.tracking.rehearsals import EXPERIMENT as REHEARSALS
from harness.tracking.rehearsals import read_trace, to_rehearsal, write_rehearsal
from harness.tracking.repair import PARENT_TAG, find_missing_params, find_run, is_ours
from harness.tracking.spool import Spool, Write, to_write
from harness.tracking.store import Store
from harness.tracking.system import SystemMonitor
from harness.tracking.tracker import LiveRun, RunDetails, StoredRun
from harness.tracking.translation import (
    MLFLOW_STATUS,
    ORIGIN,
    OUTCOME_TAGS,
    STEPS,
    is_identified,
    is_of_process,
    to_config,
    to_curve,
    to_dataset,
    to_final_metrics,
    to_imported_metrics,
    to_imported_params,
    to_imported_tags,
    to_json_tag,
    to_live_run,
    to_outcome_tags,
    to_params,
    to_params_tag,
    to_process,
    to_process_tags,
    to_record,
    to_run_name,
    to_source_tags,
    to_start_tags,
    to_status,
    to_stored_run,
    to_worker_tags,
)
from harness.tracking.view import MEASURE_TAG, VIEW_TAG, make_view, to_path
from paradigms.facts import unknown_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Metric, Run
    from mlflow.store.entities.paged_list import PagedList

P = ParamSpec("P")
T = TypeVar("T")

METRICS_PER_BATCH = 1000

INTERNAL = ("Default", REHEARSALS, CLAIMS)
"""Experiments in the store that no user has made."""


def _guarded(method: Callable[Concatenate["MlflowTracker", P], T]) -> Callable[Concatenate["MlflowTracker", P], T]:
    """Turn whatever the store raises into one `StoreError`."""

    @wraps(method)
    def guarded(self: "MlflowTracker", /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except (StoreError, KeyboardInterrupt):  # the latter perhaps in the middle of MLflow's import
            raise
        except _store_errors() as error:
            raise self.store.make_error(error) from error

    return guarded


def _store_errors() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError


class MlflowTracker:
    """A `Tracker` on MLflow's client alone: no active run, no global tracking URI.

    It may be pickled: a copy opens its own connection. A database that does not exist is empty to every question and
    is created by `prepare`. With `system_metrics` what the machine does is written to each run while it is open.

    Raises:
        StoreError: MLflow keeps no runs behind this URI.
    """

    def __init__(self, tracking_uri: str, *, system_metrics: bool = False, is_copy: bool = False) -> None:
        self.store = Store(tracking_uri)
        self._is_copy = is_copy
        self._patience = Patience(f"the tracking store {self.store.shown}")
        self.system_metrics = system_metrics
        self._monitors: dict[str, SystemMonitor] = {}
        disable_mlflow_retries()
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # the address may hold a password
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a line for each run, of a server
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints what becomes a StoreError

    def __reduce__(self) -> "tuple[partial[MlflowTracker], tuple[str]]":
        make = partial(MlflowTracker, system_metrics=self.system_metrics, is_copy=True)
        return make, (self.store.uri,)

    @cached_property
    def _bare_client(self) -> "MlflowClient":
        """A copy waits for a server that is gone; the first process finds out at once, before anything is trained."""
        if not (self._is_copy and self.store.is_server):
            self.store.check()
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.store.uri, registry_uri=self.store.uri)

    @cached_property
    def _client(self) -> "MlflowClient":
        return cast("MlflowClient", Patient(self._bare_client, self._patience))

    @cached_property
    def _artifacts(self) -> Artifacts:
        return Artifacts(self._client, self.store, self._patience)

    @cached_property
    def _spool(self) -> Spool:
        root = self.store.checkpoints.with_name("spool")
        spool = Spool(root, self.store.uri, f"the tracking store {self.store.shown}", self._perform)
        self._patience.before = spool.flush
        return spool

    def _post(self, write: Write, file: Path | None = None) -> None:
        """Do a write whose answer nobody needs; where a server does not answer it waits, see `harness.tracking.spool`.

        Whatever else is asked of the store then comes after it.
        """
        if self.store.is_server:
            self._spool.post(write, file)
        else:
            self._perform(write, file)

    def _perform(self, write: Write, file: Path | None) -> None:
        from mlflow.entities import Metric, Param, RunTag

        if file is not None:
            Artifacts(self._bare_client, self.store).log(write.run_id, file)
        if write.metrics or write.params or write.tags:
            self._bare_client.log_batch(
                write.run_id,
                metrics=[Metric(name, value, at, step) for name, value, at, step in write.metrics],
                params=[Param(name, hide_credentials(value)) for name, value in write.params.items()],
                tags=[RunTag(name, hide_credentials(value)) for name, value in write.tags.items()],
                synchronous=True,
            )
        if write.status:
            self._bare_client.set_terminated(write.run_id, write.status, end_time=write.time)
        if write.is_removal:
            remove_claim(self._bare_client, write.run_id)

    @property
    def checkpoints(self) -> Path:
        """The folder on this machine for the checkpoints of runs that have not ended."""
        return self.store.checkpoints

    def shorten_timeouts(self) -> None:
        """Wait for a server no longer."""
        self._patience.shorten_timeouts()

    @_guarded
    def prepare(self, experiment: str, *, measure: Measure = DEFAULT_MEASURE) -> None:
        """Create the database and the experiment, before any worker starts: MLflow breaks when workers do it."""
        self.store.create()
        self.store.relocate()
        if self.store.is_server:
            self._spool.adopt(self._is_of)
        experiment_id = self._ensure_experiment(experiment)
        if self._find_measure(experiment_id) != measure.name:
            self._client.set_experiment_tag(experiment_id, MEASURE_TAG, measure.name)
        self._publish_view(experiment_id)

    @_guarded
    def find_page(self, experiment: str | None = None) -> str:
        """The path at which MLflow's page shows the runs of an experiment, or of the one that was used last.

        Raises:
            StoreError: there is no such experiment.
        """
        known = {found.name: found for found in self._experiments()}
        used = {name: found for name, found in known.items() if name not in INTERNAL}
        if experiment is not None and experiment not in known:
            raise StoreError(unknown_name("experiment", experiment, tuple(used)))
        if experiment is None and not used:
            return ""
        shown = known[experiment] if experiment is not None else max(used.values(), key=self._last_run)
        with suppress(*_store_errors()):  # a store that cannot be written is shown all the same
            self._publish_view(str(shown.experiment_id))
        return to_path(str(shown.experiment_id))

    def _last_run(self, experiment: "Experiment") -> int:
        runs = self._client.search_runs([experiment.experiment_id], max_results=1)  # the newest is first
        return int(runs[0].info.start_time) if runs else 0

    def _find_measure(self, experiment_id: str) -> str:
        return self._client.get_experiment(experiment_id).tags.get(MEASURE_TAG, DEFAULT_MEASURE.name)

    def _publish_view(self, experiment_id: str) -> None:
        view = make_view(self._find_measure(experiment_id))
        if self._client.get_experiment(experiment_id).tags.get(VIEW_TAG) != view:
            self._client.set_experiment_tag(experiment_id, VIEW_TAG, view)

    @_guarded
    def start_invocation(self, spec: ExperimentSpec, *, command: str, provenance: Mapping[str, str]) -> str:
        """Open the parent run of one call of `harness run`."""
        tags = {
            "kind": "invocation",
            "experiment": spec.name,
            "title": spec.title,
            "mlflow.source.name": command,
            "mlflow.note.content": escape_markdown(spec.title),
            **to_source_tags(provenance),
            **to_process_tags(ProcessIdentity.current()),
            **to_json_tag("provenance", provenance),
        }
        params = {"command": command, "recipe": spec.recipe.name, "overrides": spec.shown_overrides}
        name = f"{spec.name} {spec.recipe.name} {datetime.now():%Y-%m-%d %H:%M:%S}"  # tells calls apart
        return self._create_run(spec.name, name, tags=tags, params=params)

    @_guarded
    def finish_invocation(
        self,
        run_id: str,
        status: RunStatus,
        *,
        counts: Mapping[RunStatus, int],
        files: Sequence[Path] = (),
        description: str = "",
    ) -> None:
        """Close a parent run with the number of runs of each status, the table's files and, in Markdown, the table."""
        for path in files:
            self._post(Write(run_id, file=path.name), path)
        metrics = {f"runs/{outcome.value}": float(count) for outcome, count in counts.items()}
        note = {"mlflow.note.content": description} if description else {}
        tags = {"status": status.value, **note}
        self._post(to_write(run_id, metrics=metrics, tags=tags, status=MLFLOW_STATUS[status]))

    @cached_property
    def _claims(self) -> Claims:
        self.store.create()
        return Claims(self._client, self._bare_client, self._ensure_experiment(CLAIMS))

    @_guarded
    def claim(self, key: str) -> str | None:
        """The id of this process's claim of a key; None where another process has it."""
        return self._claims.take(key)

    @_guarded
    def holds(self, claim: str, *, at_once: bool = True) -> bool:
        """Whether a claim is still this process's."""
        return not (at_once or self._claims.may_be_lost) or self._claims.holds(claim)

    @_guarded
    def release(self, claim: str) -> None:
        """Give a claim back."""
        self._claims.forget(claim)
        self._post(Write(claim, is_removal=True))

    def _is_of(self, run_id: str, process: ProcessIdentity) -> bool:
        """Whether a run is still that of a process, as far as the store knows."""
        run = find_run(self._client, run_id)
        return run is not None and run.info.lifecycle_stage == "active" and to_process(run) == process

    @_guarded
    def close_open(self, cell_id: str, seed: int) -> None:
        """End as `interrupted` what is open of a run whose claim this process has."""
        condition = f"attributes.status = 'RUNNING' AND tags.kind = 'run' AND tags.cell_id = '{cell_id}'"
        for run in self._search(self._experiment_ids(), condition):
            if is_ours(run) and to_live_run(self._complete(run)).seed == seed:
                self._client.set_terminated(run.info.run_id, MLFLOW_STATUS[self._write_outcome(run)])

    @_guarded
    def start_run(self, run: PlannedRun, *, spec: ExperimentSpec, parent_id: str, provenance: Mapping[str, str]) -> str:
        """Open a run of this process with its levels, its resolved config and its provenance."""
        tags = to_start_tags(run, spec, provenance, ProcessIdentity.current())
        run_id = self._create_run(
            spec.name,
            to_run_name(run),
            tags={"kind": "run", PARENT_TAG: parent_id, **tags},
            params=to_params(run, spec),
        )
        self._log_dataset(run_id, run, provenance)
        self._artifacts.log_text(run_id, hide_credentials(json.dumps(to_config(run, spec), indent=2)), CONFIG)
        if self.system_metrics:
            self._monitors[run_id] = SystemMonitor(run_id, self.store.uri)
        return run_id

    @_guarded
    def resume_run(self, run_id: str, *, spec: ExperimentSpec, parent_id: str) -> frozenset[int] | None:
        """Reopen an ended run of this experiment; its owner is written first, its outcome is removed last."""
        run = find_run(self._client, run_id)
        if run is None or run.info.experiment_id != self._require_experiment(spec.name):
            return None
        if run.info.status == "RUNNING" or run.info.lifecycle_stage != "active":
            return None
        self._write(run_id, tags={**to_process_tags(ProcessIdentity.current()), PARENT_TAG: parent_id})
        self._client.update_run(run_id, "RUNNING")
        for tag in OUTCOME_TAGS:
            if tag in run.data.tags:
                self._client.delete_tag(run_id, tag)
        if self.system_metrics:
            self._monitors[run_id] = SystemMonitor(run_id, self.store.uri)
        return frozenset(point.step for point in self._history(run, STEPS))

    @_guarded
    def log_place(self, run_id: str, provenance: Mapping[str, str], worker: ProcessIdentity) -> None:
        """Write the run's own process, and the provenance with what it alone knows."""
        self._post(to_write(run_id, tags={**to_json_tag("provenance", provenance), **to_worker_tags(worker)}))

    @_guarded
    def log_epoch(self, run_id: str, epoch: EpochMetrics) -> None:
        """Write one epoch in one `log_batch`: single calls stall for seconds beside other writers."""
        self._post(to_write(run_id, metrics={**epoch.metrics, STEPS: epoch.step}, step=epoch.epoch))

    @_guarded
    def log_file(self, run_id: str, path: Path) -> None:
        """Keep a file as an artifact of the same name."""
        self._post(Write(run_id, file=path.name), path)

    @_guarded
    def has_file(self, run_id: str, name: str) -> bool:
        """Whether a run has kept a file of this name."""
        return name in self._artifacts.list_names(self._get_run(run_id))

    @_guarded
    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Keep a text as the artifact `name`."""
        with temporary_folder() as folder:
            path = folder / name
            path.write_text(hide_credentials(text), encoding="utf-8")
            self._post(Write(run_id, file=name), path)

    @_guarded
    def read_predictions(self, run_id: str) -> Arrays:
        """What a run has kept of each test image; empty where it has kept nothing."""
        run = self._get_run(run_id)
        source = self._get_run(run.data.tags.get("reused_from", run_id))
        if PREDICTIONS not in self._artifacts.list_names(source):
            return {}
        with temporary_folder() as folder:
            path = self._artifacts.fetch(source, PREDICTIONS, folder)
            return read_arrays(path, f"{PREDICTIONS} of run {source.info.run_id}")

    @_guarded
    def fetch_file(self, run_id: str, name: str, folder: Path) -> Path:
        """Copy the artifact `name` of a run into a folder; of a light copy, that of the run that it shows."""
        run = self._get_run(run_id)
        source = self._get_run(run.data.tags.get("reused_from", run_id))
        if name not in self._artifacts.list_names(source):
            status = to_status(source)
            ended = "it has not ended" if status is None else f"it ended as {status}"
            place = self._artifacts.locate(source)
            raise StoreError(f"run {source.info.run_id} has no {name} in {place}: {ended}")
        return self._artifacts.fetch(source, name, folder)

    def _get_run(self, run_id: str) -> "Run":
        found = None if self.store.is_new else find_run(self._client, run_id)
        if found is None:
            raise StoreError(f"{self.store.shown} has no run {run_id!r}")
        return found

    @_guarded
    def finish_run(self, run_id: str, record: Record) -> None:
        """Write final metrics and outcome in one `log_batch`, then close the run."""
        if run_id in self._monitors:
            self._monitors.pop(run_id).finish()
        step = record.curve[-1].epoch if record.curve else 0
        metrics, tags = to_final_metrics(record), to_outcome_tags(record)
        self._post(to_write(run_id, metrics=metrics, step=step, tags=tags, status=MLFLOW_STATUS[record.status]))

    @_guarded
    def copy_run(self, record: Record, run: PlannedRun, *, spec: ExperimentSpec, parent_id: str) -> str:
        """Show a run of another experiment in this one, once: all metrics and tags, no artifacts.

        What an interruption has left of a copy is removed.
        """
        if record.run_id is None:
            raise ValueError(f"a run that is not stored cannot be copied, got {record.row!r} seed {record.seed}")
        source = self._complete(self._client.get_run(record.run_id))
        experiment_id = self._require_experiment(spec.name)
        if source.info.experiment_id == experiment_id:
            return record.run_id
        for copy in self._search([experiment_id], f"tags.reused_from = '{record.run_id}'"):
            if copy.data.tags.get("status") == record.status.value:
                return str(copy.info.run_id)
            self._client.delete_run(copy.info.run_id)
        return self._copy(source, run, spec, parent_id)

    @_guarded
    def ledger(self, cell_ids: Iterable[str], *, curves: Sequence[str] = ()) -> list[Record]:
        """Every ended run of these cells in the whole store, newest first, copies left out."""
        if self.store.is_new:
            return []
        return self._read(self._experiment_ids(), cell_ids, condition="tags.kind = 'run' AND ", curves=curves)

    @_guarded
    def read_records(
        self, experiment: str, cell_ids: Iterable[str], *, curves: Sequence[str] = (DEFAULT_MEASURE.val,)
    ) -> list[Record]:
        """Every ended run of these cells in one experiment, newest first, copies included."""
        experiment_id = None if self.store.is_new else self._find_experiment(experiment)
        return [] if experiment_id is None else self._read([experiment_id], cell_ids, curves=curves)

    @_guarded
    def close_dead_runs(self) -> list[str]:
        """End as `interrupted` what processes of this host that are gone left open, parent runs and copies included.

        And complete what ended runs lack: an outcome, or params that an interruption kept from being written.
        """
        dead = [run for run in self._open_runs() if to_process(run).is_gone]
        for run in dead:
            status = self._write_outcome(run)
            self._client.set_terminated(run.info.run_id, MLFLOW_STATUS[status], end_time=self._find_end(run))
        if not self.store.is_new:
            self._close_dead_rehearsals()
            if self._find_experiment(CLAIMS) is not None:
                self._claims.remove_dead()
            self._complete_ended()
        return [run.info.run_id for run in dead]

    def _close_dead_rehearsals(self) -> None:
        experiment_id = self._find_experiment(REHEARSALS)
        open_runs = [] if experiment_id is None else self._search([experiment_id], "attributes.status = 'RUNNING'")
        for run in open_runs:
            if to_process(run).is_gone:
                self._client.set_terminated(run.info.run_id, MLFLOW_STATUS[RunStatus.INTERRUPTED])

    def _write_outcome(self, run: "Run") -> RunStatus:
        """The outcome that a run has reached, else that it was interrupted."""
        status = to_status(run) or RunStatus.INTERRUPTED
        detail = run.data.tags.get("status_detail", "its process ended without a result")
        self._write(run.info.run_id, tags={"status": status.value, "status_detail": detail})
        return status

    def _find_end(self, run: "Run") -> int | None:
        """Of a copy the end of what it shows, in milliseconds: it must not seem newer."""
        source = run.data.tags.get("reused_from")
        found = None if source is None else find_run(self._client, source)
        return None if found is None else found.info.end_time

    def _complete_ended(self) -> None:
        ids, ended = self._experiment_ids(), "attributes.status != 'RUNNING'"
        for run in self._search(ids, f"tags.status IS NULL AND {ended}"):
            if is_ours(run):
                self._write_outcome(run)
        for param in ("seed", "command"):
            for run in self._search(ids, f"params.{param} IS NULL AND tags.kind IS NOT NULL AND {ended}"):
                if is_ours(run) and (missing := find_missing_params(run, self._client, self._artifacts)):
                    self._write(run.info.run_id, params=missing)

    @_guarded
    def running_elsewhere(self) -> list[LiveRun]:
        """Open runs of other processes that are alive, or on hosts of which nothing is known."""
        here = ProcessIdentity.current()
        others = [run for run in self._open_runs() if to_process(run) != here and not to_process(run).is_gone]
        runs = [self._complete(run) for run in others if run.data.tags["kind"] == "run"]
        return [to_live_run(run) for run in runs if is_identified(run)]

    @_guarded
    def list_experiments(self) -> tuple[str, ...]:
        """The names of the experiments that the store has, or once had, runs of."""
        known = [] if self.store.is_new else self._experiments()
        return tuple(found.name for found in known if found.name not in INTERNAL)

    @_guarded
    def find_runs(self, prefix: str = "", *, experiments: Collection[str] | None = None) -> list[StoredRun]:
        """Every run, of some experiments or of all, whose id, or whose cell's id, begins so.

        Newest first, copies included. All runs of a large store take a millisecond or two each.
        """
        conditions = [f"tags.cell_id LIKE '{prefix}%'"]
        conditions += [f"attributes.run_id LIKE '{prefix}%' AND tags.cell_id LIKE '%'"] if prefix else []
        return self._find_stored(conditions, experiments)

    @_guarded
    def find_runs_of(self, cell_ids: Iterable[str]) -> list[StoredRun]:
        """Every run of these cells in the whole store; newest first, copies included."""
        return self._find_stored([f"tags.cell_id = '{cell_id}'" for cell_id in dict.fromkeys(cell_ids)])

    def _find_stored(self, conditions: Iterable[str], experiments: Collection[str] | None = None) -> list[StoredRun]:
        if self.store.is_new:
            return []
        names = {str(found.experiment_id): found.name for found in self._experiments()}
        ids = [number for number, name in names.items() if experiments is None or name in experiments]
        found = {run.info.run_id: run for condition in conditions if ids for run in self._search(ids, condition)}
        ours = [self._complete(run) for run in found.values() if is_ours(run)]
        runs = [to_stored_run(run, names[run.info.experiment_id]) for run in ours if is_identified(run)]
        return sorted(runs, key=lambda run: run.started, reverse=True)

    @_guarded
    def read_details(self, run_id: str) -> RunDetails:
        """The rest of what is known of a run."""
        run = self._client.get_run(run_id)
        parent = find_run(self._client, run.data.tags.get(PARENT_TAG, ""))
        names = [name for name in run.data.metrics if name.startswith(("train/", "val/")) and name != STEPS]
        return RunDetails(
            curve=self._read_curve(run, names),
            config=self._artifacts.read_config(run),
            command="" if parent is None else self._complete(parent).data.params.get("command", ""),
            location=self._artifacts.locate(run),
            artifacts=self._artifacts.list_names(run),
        )

    @_guarded
    def import_run(self, run: PortableRun) -> bool:
        """Store a run, or a light copy of it if another experiment has it; its outcome is written last.

        What an interruption has left of an import has no outcome, or another one. It is not taken for the run, and is
        removed.
        """
        self.store.create()
        experiment_id, record = self._ensure_experiment(run.experiment), run.record
        found = self._find_origin(run.origin)
        known = [each for each in found if to_status(each) == record.status]
        if any(each.info.experiment_id == experiment_id for each in known):
            return False
        for each in found:
            is_import = each.info.run_id != run.origin and each.info.experiment_id == experiment_id
            process = to_process(each)
            if is_import and (process.is_gone or process == ProcessIdentity.current()):
                self._client.delete_run(each.info.run_id)
        kind = {"kind": "reused", "reused_from": known[0].info.run_id} if known else {"kind": "run"}
        run_id = self._create_run(
            run.experiment,
            f"{record.row} seed {record.seed}",
            tags={**kind, **to_imported_tags(run), **to_process_tags(ProcessIdentity.current())},
            params=to_imported_params(run),
            started=run.started,
        )
        self._log_points(run_id, to_imported_metrics(run))
        if not known:
            self._artifacts.log_text(run_id, json.dumps(run.config, indent=2), CONFIG)
            if run.per_image:
                with temporary_folder() as folder:
                    self._artifacts.log(run_id, write_arrays(folder / PREDICTIONS, run.per_image))
        self._write(run_id, tags=to_outcome_tags(record))
        self._client.set_terminated(run_id, MLFLOW_STATUS[record.status], end_time=round(1000 * record.end_time))
        return True

    @_guarded
    def list_origins(self, experiment: str) -> frozenset[str]:
        """The ids, where they were trained, of the ended runs of one experiment, copies included."""
        experiment_id = None if self.store.is_new else self._find_experiment(experiment)
        runs = [] if experiment_id is None else self._search([experiment_id], "attributes.status != 'RUNNING'")
        return frozenset(
            origin
            for run in runs
            if to_status(run) is not None
            for origin in (run.info.run_id, run.data.tags.get(ORIGIN), run.data.tags.get("reused_from"))
            if origin is not None
        )

    def _find_origin(self, origin: str) -> "list[Run]":
        """The runs that are, or were imported from, the run with this id."""
        imported = self._search(self._experiment_ids(), f"tags.{ORIGIN} = '{origin}'")
        own = find_run(self._client, origin)
        return imported if own is None else [own, *imported]

    @_guarded
    def log_rehearsal(self, rehearsal: Rehearsal, row: str) -> None:
        """Keep a rehearsal, called after its row."""
        experiment_id = self._ensure_experiment(REHEARSALS)
        name = f"{row} seed {rehearsal.seed}"
        write_rehearsal(rehearsal, name, experiment_id=experiment_id, client=self._client, artifacts=self._artifacts)

    @_guarded
    def read_rehearsals(self, cell_ids: Iterable[str]) -> list[Rehearsal]:
        """Every rehearsal of these cells, newest first, without their traces."""
        experiment_id = None if self.store.is_new else self._find_experiment(REHEARSALS)
        wanted = () if experiment_id is None else dict.fromkeys(cell_ids)
        runs = [run for cell in wanted for run in self._search([str(experiment_id)], f"tags.rehearsed = '{cell}'")]
        return [found for run in runs if (found := to_rehearsal(run)) is not None]

    @_guarded
    def read_trace(self, cell_id: str, digest: str) -> dict[str, Any]:
        """The trace of this digest of a cell; empty where the store has none."""
        experiment_id = None if self.store.is_new else self._find_experiment(REHEARSALS)
        if experiment_id is None:
            return {}
        condition = f"tags.rehearsed = '{cell_id}' AND tags.trace = '{digest}'"
        return read_trace(self._search([experiment_id], condition), self._artifacts)

    def _complete(self, run: "Run") -> "Run":
        """A run with the params that it lacks, where anything in the store says what they are; nothing is written."""
        run.data.params.update(find_missing_params(run, self._client, self._artifacts))
        return run

    def _find_experiment(self, name: str) -> str | None:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None and experiment.lifecycle_stage != "active":
            raise StoreError(
                f"the experiment {name!r} was deleted from {self.store.shown}; restore it there, or use another store"
            )
        return None if experiment is None else str(experiment.experiment_id)

    def _require_experiment(self, name: str) -> str:
        found = self._find_experiment(name)
        assert found is not None, f"prepare({name!r}) comes first"
        return found

    def _ensure_experiment(self, name: str) -> str:
        """The id of an experiment, which is created if it is missing."""
        if self._find_experiment(name) is None:
            self._create_experiment(name)
        return self._require_experiment(name)

    def _create_experiment(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_experiment(name, artifact_location=self.store.artifact_location(name))
        except MlflowException:
            if self._find_experiment(name) is None:  # else another invocation was first
                raise

    def _create_run(
        self,
        experiment: str,
        name: str,
        *,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        started: float | None = None,
    ) -> str:
        """What identifies the run is in the commit that creates it: whatever comes next may never be written."""
        known = {name: hide_credentials(tag) for name, tag in {**tags, **to_params_tag(params)}.items()}
        start_time = None if started is None else round(1000 * started)
        created = self._client.create_run(
            self._require_experiment(experiment), start_time=start_time, tags=known, run_name=name
        )
        self._write(created.info.run_id, params=params)
        return str(created.info.run_id)

    def _copy(self, source: "Run", run: PlannedRun, spec: ExperimentSpec, parent_id: str) -> str:
        """Its status is written last: what an interruption leaves is not taken for a copy."""
        record = to_record(source)
        provenance, detail = record.provenance, source.data.tags.get("status_detail", "")
        outcome = {"status": record.status.value, "status_detail": detail}
        tags = source.data.tags
        kept = {name: tag for name, tag in tags.items() if not (name.startswith("mlflow.") or is_of_process(name))}
        own = {
            "kind": "reused",
            "reused_from": source.info.run_id,
            "experiment": spec.name,
            "title": spec.title,
            PARENT_TAG: parent_id,
            **to_source_tags(provenance),
            **to_process_tags(ProcessIdentity.current()),
        }
        tags = {name: tag for name, tag in {**kept, **own}.items() if name not in outcome}
        run_id = self._create_run(spec.name, to_run_name(run), tags=tags, params=to_params(run, spec))
        self._log_dataset(run_id, run, provenance)
        self._log_points(run_id, [point for metric in source.data.metrics for point in self._history(source, metric)])
        self._write(run_id, tags=outcome)
        self._client.set_terminated(run_id, source.info.status, end_time=source.info.end_time)
        return run_id

    def _log_points(self, run_id: str, points: "Sequence[Metric]") -> None:
        for start in range(0, len(points), METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics=points[start : start + METRICS_PER_BATCH])

    def _log_dataset(self, run_id: str, run: PlannedRun, provenance: Mapping[str, str]) -> None:
        """Again where it fails: MLflow breaks when two writers are the first to name a dataset; then it is there."""
        inputs = [to_dataset(run, provenance)]
        try:
            self._client.log_inputs(run_id, inputs)
        except _store_errors():
            self._client.log_inputs(run_id, inputs)

    def _write(
        self,
        run_id: str,
        *,
        metrics: Mapping[str, float] | None = None,
        step: int = 0,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        write = to_write(run_id, metrics=metrics, step=step, params=params, tags=tags)
        self._patience.call(self._perform, write, None)

    def _read(
        self, experiment_ids: list[str], cell_ids: Iterable[str], *, condition: str = "", curves: Sequence[str]
    ) -> list[Record]:
        """One query a cell: MLflow cannot ask for one of several values of a tag."""
        found = [
            run
            for cell_id in dict.fromkeys(cell_ids)
            for run in self._search(experiment_ids, f"{condition}tags.cell_id = '{cell_id}'")
            if is_ours(run) and to_status(run) is not None
        ]
        complete = [run for run in map(self._complete, found) if is_identified(run)]
        records = [to_record(run, self._read_curve(run, curves)) for run in complete]
        return sorted(records, key=lambda record: record.end_time, reverse=True)

    def _read_curve(self, run: "Run", names: Sequence[str]) -> tuple[EpochMetrics, ...]:
        wanted = [name for name in (STEPS, *names) if name in run.data.metrics] if names else []
        return to_curve({name: self._history(run, name) for name in wanted})

    def _history(self, run: "Run", metric: str) -> "Sequence[Metric]":
        return self._client.get_metric_history(run.info.run_id, metric)

    def _open_runs(self) -> "list[Run]":
        if self.store.is_new:
            return []
        runs = self._search(self._experiment_ids(), "attributes.status = 'RUNNING'")
        return [run for run in runs if is_ours(run)]

    def _experiments(self) -> "list[Experiment]":
        return _all_pages(lambda token: self._client.search_experiments(page_token=token))

    def _experiment_ids(self) -> list[str]:
        return [str(experiment.experiment_id) for experiment in self._experiments()]

    def _search(self, experiment_ids: list[str], condition: str) -> "list[Run]":
        return _all_pages(lambda token: self._client.search_runs(experiment_ids, condition, page_token=token))


def _all_pages(fetch: Callable[[str | None], "PagedList[T]"]) -> list[T]:
    page = fetch(None)
    items = list(page)
    while page.token:
        page = fetch(page.token)
        items += page
    return items
