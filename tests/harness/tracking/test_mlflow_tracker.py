import json
import pickle
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from harness.errors import StoreError
from harness.plan import Plan, PlannedRun
from harness.record import EpochMetrics, Record, RunStatus
from harness.spec import ExperimentSpec
from harness.tracking import LiveRun, MlflowTracker, Tracker
from harness.tracking.process import ProcessIdentity
from harness.tracking.translation import read_json_tag

PROVENANCE = {"code_digest": "c0de", "data_digest": "da7a" * 16, "commit": "abc", "dirty": "false"}

DEAD, ALIVE = -1, -2
"""Ids that no process has."""

CURVE = (
    EpochMetrics(1, 10, {"val/top1": 50.0, "train/loss": 2.0, "train/images_per_second": 90.0}),
    EpochMetrics(2, 20, {"val/top1": 60.0, "train/loss": 1.5, "train/images_per_second": 110.0}),
)


def make_record(run: PlannedRun, status: RunStatus = RunStatus.OK, **changes: object) -> Record:
    """What a run of two epochs comes to."""
    record = Record(
        cell_id=run.row.cell.id,
        row=run.row.name,
        seed=run.seed,
        status=status,
        metrics={**CURVE[-1].metrics, "test/top1": 58.0, "train/images_per_second": 100.0, "params": 1234.0},
        curve=CURVE,
        provenance=PROVENANCE,
        status_detail="the training loss is nan" if status == RunStatus.DIVERGED else "",
        step=412 if status == RunStatus.DIVERGED else None,
        limits={"time_limit_minutes": 5.0},
    )
    return replace(record, **changes)


class Desk:
    """A tracker with an open invocation: starts, trains and ends runs."""

    def __init__(self, tracker: Tracker, spec: ExperimentSpec) -> None:
        self.tracker, self.spec = tracker, spec
        tracker.prepare(spec.name)
        self.parent_id = tracker.start_invocation(spec, command="harness run small.yaml", provenance=PROVENANCE)

    def start(self, run: PlannedRun) -> str:
        return self.tracker.start_run(run, spec=self.spec, parent_id=self.parent_id, provenance=PROVENANCE)

    def execute(self, run: PlannedRun, record: Record | None = None) -> Record:
        run_id, record = self.start(run), record or make_record(run)
        for epoch in record.curve:
            self.tracker.log_epoch(run_id, epoch)
        self.tracker.finish_run(run_id, record)
        return replace(record, run_id=run_id)

    def copy(self, record: Record, run: PlannedRun) -> str:
        return self.tracker.copy_run(record, run, spec=self.spec, parent_id=self.parent_id)


def cell_ids(plan: Plan) -> list[str]:
    return [row.cell.id for row in plan.rows]


class TrackerContract:
    """What every tracker promises; a subclass gives the fixture `tracker`."""

    @pytest.fixture
    def desk(self, tracker: Tracker, small_spec: ExperimentSpec) -> Desk:
        return Desk(tracker, small_spec)

    @pytest.fixture
    def other_desk(self, tracker: Tracker, small_spec: ExperimentSpec) -> Desk:
        return Desk(tracker, small_spec.model_copy(update={"name": "other"}))

    def test_an_empty_store_knows_nothing(self, tracker, small_plan):
        assert tracker.ledger(cell_ids(small_plan)) == []
        assert tracker.read_records("small", cell_ids(small_plan)) == []
        assert tracker.close_dead_runs() == []
        assert tracker.running_elsewhere() == []
        assert tracker.find_runs() == []
        assert tracker.find_runs_of(cell_ids(small_plan)) == []
        assert tracker.list_experiments() == ()

    def test_runs_are_found_by_the_beginning_of_their_id_or_their_cells(self, desk, other_desk, small_plan):
        record, other = desk.execute(small_plan.runs[0]), desk.execute(small_plan.runs[1])
        copy_id = other_desk.copy(record, small_plan.runs[0])
        open_id = desk.start(small_plan.runs[2])
        found = {run.run_id: run for run in desk.tracker.find_runs()}
        assert set(found) == {record.run_id, other.run_id, copy_id, open_id}
        assert [run.run_id for run in desk.tracker.find_runs(record.run_id[:12])] == [record.run_id]
        assert {run.run_id for run in desk.tracker.find_runs(record.cell_id[:10])} == {record.run_id, copy_id}
        assert {run.run_id for run in desk.tracker.find_runs_of([record.cell_id])} == {record.run_id, copy_id}
        assert {run.run_id for run in desk.tracker.find_runs(experiments=["other"])} == {copy_id}
        assert set(desk.tracker.list_experiments()) == {"small", "other"}
        assert found[copy_id].experiment == "other"
        assert found[copy_id].reused_from == record.run_id
        assert replace(found[record.run_id].record, end_time=0.0) == replace(record, curve=())
        assert found[open_id].record is None
        assert found[open_id].is_live
        assert [run.is_live for run in found.values()].count(True) == 1

    def test_details_have_the_whole_curve_the_config_and_the_files(self, desk, small_plan):
        record = desk.execute(small_plan.runs[0])
        details = desk.tracker.read_details(record.run_id)
        assert details.curve == record.curve
        assert details.config["cell_id"] == record.cell_id
        assert details.command == "harness run small.yaml"
        assert details.artifacts == ("config.json",)
        assert (Path(details.location) / "config.json").is_file()

    def test_preparing_twice_changes_nothing(self, desk, small_plan):
        desk.execute(small_plan.runs[0])
        desk.tracker.prepare("small")
        assert len(desk.tracker.ledger(cell_ids(small_plan))) == 1

    @pytest.mark.parametrize("status", RunStatus)
    def test_a_record_comes_back_as_it_was(self, desk, small_plan, status):
        record = desk.execute(small_plan.runs[0], make_record(small_plan.runs[0], status))
        names = ("val/top1", "train/loss", "train/images_per_second")
        (found,) = desk.tracker.ledger([record.cell_id], curves=names)
        assert found.end_time > 1.7e9
        if status == RunStatus.INTERRUPTED:  # it may go on: its curve has no second value
            record = replace(record, metrics={**record.metrics, **record.curve[-1].metrics})
        assert replace(found, end_time=0.0) == record

    def test_an_interrupted_run_goes_on_as_the_same_run(self, desk, small_plan):
        run = small_plan.runs[0]
        interrupted = desk.execute(run, make_record(run, RunStatus.INTERRUPTED, curve=CURVE[:1]))
        resume = partial(desk.tracker.resume_run, spec=desk.spec, parent_id=desk.parent_id)
        assert resume(interrupted.run_id) == {1}
        assert desk.tracker.ledger([interrupted.cell_id]) == []
        assert resume(interrupted.run_id) is None  # a process has it open
        desk.tracker.log_epoch(interrupted.run_id, CURVE[1])
        desk.tracker.finish_run(interrupted.run_id, make_record(run))
        (found,) = desk.tracker.ledger([interrupted.cell_id], curves=("val/top1", "train/loss"))
        assert (found.run_id, found.status, found.status_detail) == (interrupted.run_id, RunStatus.OK, "")
        assert [epoch.epoch for epoch in found.curve] == [1, 2]

    def test_a_run_of_another_experiment_or_none_does_not_go_on(self, desk, other_desk, small_plan):
        record = desk.execute(small_plan.runs[0], make_record(small_plan.runs[0], RunStatus.INTERRUPTED))
        for run_id in (record.run_id, "0" * 32):
            assert desk.tracker.resume_run(run_id, spec=other_desk.spec, parent_id=other_desk.parent_id) is None

    def test_without_asking_for_curves_there_are_none(self, desk, small_plan):
        record = desk.execute(small_plan.runs[0])
        assert desk.tracker.ledger([record.cell_id])[0].curve == ()
        assert [e.metrics for e in desk.tracker.read_records("small", [record.cell_id])[0].curve] == [
            {"val/top1": 50.0},
            {"val/top1": 60.0},
        ]

    def test_only_the_cells_asked_for_are_read(self, desk, small_plan):
        for run in small_plan.runs[:3]:
            desk.execute(run)
        asked = [small_plan.rows[2].cell.id, "unknown"]
        assert [record.row for record in desk.tracker.ledger(asked)] == ["Net7-N"]

    def test_the_newest_run_comes_first(self, desk, small_plan):
        ids = [desk.execute(small_plan.runs[0]).run_id for _ in range(3)]
        found = desk.tracker.ledger([small_plan.rows[0].cell.id])
        assert {record.run_id for record in found} == set(ids)
        assert [record.end_time for record in found] == sorted((record.end_time for record in found), reverse=True)

    def test_a_run_that_has_not_ended_is_in_no_ledger(self, desk, small_plan):
        desk.start(small_plan.runs[0])
        assert desk.tracker.ledger(cell_ids(small_plan)) == []

    def test_the_ledger_goes_over_all_experiments(self, desk, other_desk, small_plan):
        desk.execute(small_plan.runs[0])
        other_desk.execute(small_plan.runs[1])
        assert len(desk.tracker.ledger(cell_ids(small_plan))) == 2
        assert [r.row for r in desk.tracker.read_records("other", cell_ids(small_plan))] == ["Net1"]

    def test_a_copy_completes_its_experiment_and_is_left_out_of_the_ledger(self, desk, other_desk, small_plan):
        record = desk.execute(small_plan.runs[0])
        copy_id = other_desk.copy(record, small_plan.runs[0])
        (original,) = desk.tracker.ledger([record.cell_id], curves=["val/top1"])
        (copy,) = desk.tracker.read_records("other", [record.cell_id])
        assert copy == replace(original, run_id=copy_id)
        assert original.run_id == record.run_id

    def test_a_run_is_copied_once(self, desk, other_desk, small_plan):
        record = desk.execute(small_plan.runs[0])
        assert other_desk.copy(record, small_plan.runs[0]) == other_desk.copy(record, small_plan.runs[0])

    def test_a_run_is_not_copied_into_its_own_experiment(self, desk, small_plan):
        record = desk.execute(small_plan.runs[0])
        assert desk.copy(record, small_plan.runs[0]) == record.run_id
        assert len(desk.tracker.read_records("small", [record.cell_id])) == 1

    def test_a_copy_has_the_name_of_the_row_that_reuses_it(self, desk, other_desk, small_plan):
        record = desk.execute(small_plan.runs[0])
        other_desk.copy(record, replace(small_plan.runs[0], row=replace(small_plan.rows[0], name="Baseline")))
        assert other_desk.tracker.read_records("other", [record.cell_id])[0].row == "Baseline"

    def test_what_a_dead_process_left_open_is_interrupted(self, desk, small_plan, as_another_process):
        as_another_process(is_alive=False)
        run_id = desk.start(small_plan.runs[0])
        as_another_process(is_alive=True)
        assert desk.tracker.close_dead_runs() == [run_id]
        assert desk.tracker.close_dead_runs() == []
        (record,) = desk.tracker.ledger(cell_ids(small_plan))
        assert (record.run_id, record.status) == (run_id, RunStatus.INTERRUPTED)
        assert record.provenance == PROVENANCE

    def test_a_run_that_had_ended_before_its_process_died_keeps_its_status(
        self, desk, small_plan, as_another_process, monkeypatch
    ):
        as_another_process(is_alive=False)
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "set_terminated", lambda *_args, **_options: None)
            desk.execute(small_plan.runs[0])
        as_another_process(is_alive=True)
        desk.tracker.close_dead_runs()
        assert desk.tracker.ledger(cell_ids(small_plan))[0].status == RunStatus.OK

    def test_runs_of_live_processes_and_of_other_hosts_are_left_alone(self, desk, small_plan, as_another_process):
        as_another_process(is_alive=True, pid=1)
        here = desk.start(small_plan.runs[0])
        as_another_process(is_alive=False, pid=2, host="elsewhere")
        there = desk.start(small_plan.runs[1])
        as_another_process(is_alive=True, pid=3)
        desk.start(small_plan.runs[2])
        assert desk.tracker.close_dead_runs() == []
        assert {run.run_id for run in desk.tracker.running_elsewhere()} == {here, there}
        cell_id = small_plan.rows[1].cell.id
        assert LiveRun(there, cell_id, "Net1", 0, "elsewhere", 2) in desk.tracker.running_elsewhere()

    def test_a_tracker_survives_pickling(self, desk, small_plan):
        record = desk.execute(small_plan.runs[0])
        assert len(pickle.loads(pickle.dumps(desk.tracker)).ledger([record.cell_id])) == 1


@pytest.fixture
def as_another_process(monkeypatch) -> Callable[..., None]:
    """What is started from now on belongs to a process that is alive or not."""
    own = ProcessIdentity.current()
    alive = {(own.host, own.pid): True}

    def become(*, is_alive: bool, pid: int | None = None, host: str = own.host) -> None:
        identity = replace(own, pid=pid or (ALIVE if is_alive else DEAD), host=host)
        alive[identity.host, identity.pid] = is_alive
        monkeypatch.setattr(ProcessIdentity, "current", lambda: identity)

    monkeypatch.setattr(ProcessIdentity, "is_alive", property(lambda self: alive[self.host, self.pid]))
    return become


class TestMlflowTracker(TrackerContract):
    @pytest.fixture
    def tracker(self, tracking_uri: str) -> MlflowTracker:
        return MlflowTracker(tracking_uri)

    @pytest.fixture
    def client(self, tracking_uri: str) -> MlflowClient:
        return MlflowClient(tracking_uri=tracking_uri)

    def test_a_run_is_a_child_with_levels_digests_and_config(self, desk, client, small_plan):
        record = desk.execute(small_plan.runs[0])
        run = client.get_run(record.run_id)
        assert run.data.tags["mlflow.parentRunId"] == desk.parent_id
        assert run.data.tags["title"] == "A small experiment"
        assert read_json_tag("provenance", run.data.tags)["code_digest"] == "c0de"
        assert run.data.params["parameterization"] == "query_key + position_bias"
        config = json.loads(Path(client.download_artifacts(record.run_id, "config.json")).read_text())
        assert config["cell_id"] == record.cell_id

    def test_artifacts_lie_beside_the_database(self, desk, small_plan, tmp_path):
        run_id = desk.start(small_plan.runs[0])
        (tmp_path / "weights.pt").write_bytes(b"weights")
        desk.tracker.log_file(run_id, tmp_path / "weights.pt")
        desk.tracker.log_text(run_id, "Traceback ...", "traceback.txt")
        folder = tmp_path / "store" / "mlartifacts" / "small" / run_id / "artifacts"
        assert sorted(path.name for path in folder.iterdir()) == ["config.json", "traceback.txt", "weights.pt"]

    def test_an_epoch_is_one_batch(self, desk, small_plan, monkeypatch):
        run_id, calls = desk.start(small_plan.runs[0]), []
        monkeypatch.setattr(MlflowClient, "log_batch", lambda *_args, **batch: calls.append(batch))
        desk.tracker.log_epoch(run_id, CURVE[0])
        (batch,) = calls
        assert {metric.key: metric.value for metric in batch["metrics"]} == {**CURVE[0].metrics, "train/steps": 10}
        assert {metric.step for metric in batch["metrics"]} == {1}

    @pytest.mark.parametrize(
        ("status", "shown"),
        [(RunStatus.OK, "FINISHED"), (RunStatus.DIVERGED, "FAILED"), (RunStatus.TIMED_OUT, "KILLED")],
    )
    def test_mlflow_shows_how_a_run_ended(self, desk, client, small_plan, status, shown):
        record = desk.execute(small_plan.runs[0], make_record(small_plan.runs[0], status))
        assert client.get_run(record.run_id).info.status == shown

    def test_an_invocation_ends_with_counts_and_the_tables_files(self, desk, client, tmp_path):
        (tmp_path / "small.md").write_text("# A small experiment")
        counts = {RunStatus.OK: 23, RunStatus.DIVERGED: 1}
        desk.tracker.finish_invocation(desk.parent_id, RunStatus.OK, counts=counts, files=[tmp_path / "small.md"])
        run = client.get_run(desk.parent_id)
        assert (run.info.status, run.data.metrics) == ("FINISHED", {"runs/ok": 23.0, "runs/diverged": 1.0})
        assert run.data.params["command"] == "harness run small.yaml"
        assert [file.path for file in client.list_artifacts(desk.parent_id)] == ["small.md"]

    def test_an_invocation_is_described_by_its_table(self, desk, client):
        desk.tracker.finish_invocation(desk.parent_id, RunStatus.OK, counts={}, description="| row | top-1 |")
        assert client.get_run(desk.parent_id).data.tags["mlflow.note.content"] == "| row | top-1 |"

    def test_an_invocation_without_a_table_keeps_its_title(self, desk, client):
        desk.tracker.finish_invocation(desk.parent_id, RunStatus.INTERRUPTED, counts={})
        assert client.get_run(desk.parent_id).data.tags["mlflow.note.content"] == "A small experiment"

    def test_runs_and_copies_can_be_grouped_and_traced(self, desk, other_desk, client, small_plan):
        record = desk.execute(small_plan.runs[0], make_record(small_plan.runs[0], RunStatus.DIVERGED))
        for run_id in (record.run_id, other_desk.copy(record, small_plan.runs[0])):
            run = client.get_run(run_id)
            assert run.info.run_name == "Swin-T seed 0"
            assert {"row", "seed", "recipe", "normalization", "neighborhood"} <= set(run.data.params)
            assert run.data.tags["status"] == "diverged"
            assert run.data.tags["mlflow.source.git.commit"] == "abc"
            (used,) = run.inputs.dataset_inputs
            assert used.dataset.name == "fashion_mnist"
            assert used.dataset.digest == "da7a" * 9

    def test_two_runs_may_be_the_first_of_a_dataset_at_once(self, desk, client, small_plan, monkeypatch):
        log_inputs, failures = MlflowClient.log_inputs, [MlflowException("UNIQUE constraint failed: datasets.name")]

        def log_second(*arguments):
            if failures:
                raise failures.pop()
            log_inputs(*arguments)

        monkeypatch.setattr(MlflowClient, "log_inputs", log_second)
        run = client.get_run(desk.start(small_plan.runs[0]))
        assert [used.dataset.name for used in run.inputs.dataset_inputs] == ["fashion_mnist"]

    def test_an_installed_package_has_no_commit(self, desk, client, small_plan):
        provenance = {**PROVENANCE, "commit": "elsa-ablation 0.1.0"}
        run = small_plan.runs[0]
        run_id = desk.tracker.start_run(run, spec=desk.spec, parent_id=desk.parent_id, provenance=provenance)
        assert "mlflow.source.git.commit" not in client.get_run(run_id).data.tags

    def test_the_machine_is_watched_when_asked_and_stays_out_of_the_record(
        self, tracking_uri, client, small_spec, small_plan, monkeypatch
    ):
        monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
        tracker = pickle.loads(pickle.dumps(MlflowTracker(tracking_uri, system_metrics=True)))
        desk, run = Desk(tracker, small_spec), small_plan.runs[0]
        run_id, name = desk.start(run), "system/cpu_utilization_percentage"
        assert any(client.get_metric_history(run_id, name) for _ in range(10_000))
        tracker.finish_run(run_id, make_record(run))
        assert "SystemMetricsMonitor" not in {thread.name for thread in threading.enumerate()}
        (record,) = tracker.ledger([run.row.cell.id])
        assert not any(metric.startswith("system/") for metric in record.metrics)

    def test_the_machine_is_not_watched_unasked(self, desk, client, small_plan):
        record = desk.execute(small_plan.runs[0])
        metrics = client.get_run(record.run_id).data.metrics
        assert not any(name.startswith("system/") for name in metrics)

    def test_a_dead_invocation_is_closed(self, tracker, client, small_spec, as_another_process):
        as_another_process(is_alive=False)
        desk = Desk(tracker, small_spec)
        as_another_process(is_alive=True)
        assert tracker.close_dead_runs() == [desk.parent_id]
        assert client.get_run(desk.parent_id).info.status == "KILLED"

    def test_a_long_message_is_cut_to_what_a_tag_holds(self, desk, small_plan):
        record = make_record(small_plan.runs[0], RunStatus.FAILED, status_detail="x" * 20_000)
        desk.execute(small_plan.runs[0], record)
        assert desk.tracker.ledger([record.cell_id])[0].status_detail == "x" * 5000

    def test_runs_of_others_in_the_same_store_are_left_alone(self, desk, client, small_plan):
        foreign = client.create_run("0", tags={"cell_id": small_plan.rows[0].cell.id})
        assert desk.tracker.close_dead_runs() == []
        assert desk.tracker.ledger(cell_ids(small_plan)) == []
        assert client.get_run(foreign.info.run_id).info.status == "RUNNING"

    def test_reading_creates_no_database(self, tmp_path, small_plan):
        tracker = MlflowTracker(f"sqlite:///{tmp_path}/none/mlflow.db")
        assert tracker.ledger(cell_ids(small_plan)) == []
        assert tracker.read_records("small", cell_ids(small_plan)) == []
        assert tracker.close_dead_runs() == []
        assert not (tmp_path / "none").exists()

    def test_a_deleted_experiment_is_one_clear_error(self, desk, client):
        client.delete_experiment(client.get_experiment_by_name("small").experiment_id)
        with pytest.raises(StoreError, match="'small' was deleted"):
            desk.tracker.prepare("small")

    def test_a_store_that_cannot_be_written_is_one_clear_error(self, desk, small_plan, tracking_uri):
        run_id = desk.start(small_plan.runs[0])
        with closing(sqlite3.connect(tracking_uri.removeprefix("sqlite:///"))) as connection:
            connection.execute("DROP TABLE metrics")
        with pytest.raises(StoreError, match=r"the tracking store .* cannot be used: .*no such table"):
            desk.tracker.log_epoch(run_id, CURVE[0])


class TestMovedStore:
    """MLflow stores absolute paths; the folder of a store may be moved, copied, or mounted elsewhere."""

    @pytest.fixture
    def trained(self, tracking_uri: str, small_spec: ExperimentSpec, small_plan: Plan) -> Record:
        """A run with weights, in a store that is to be moved."""
        desk, run = Desk(MlflowTracker(tracking_uri), small_spec), small_plan.runs[0]
        record = desk.execute(run)
        desk.tracker.log_text(record.run_id, "weights", "weights.pt")
        return record

    @pytest.fixture(params=["moved", "copied"])
    def moved(self, trained: Record, tracking_uri: str, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
        """The folder of the store, with a blank in its name."""
        old, new = Path(tracking_uri.removeprefix("sqlite:///")).parent, tmp_path / "a new place"
        if request.param == "moved":
            return old.rename(new)
        shutil.copytree(old, new)
        (old / "mlartifacts" / "small" / str(trained.run_id) / "artifacts" / "weights.pt").write_text("changed later")
        return new

    def test_a_moved_store_still_finds_its_weights(self, moved, trained, tmp_path):
        tracker = MlflowTracker(f"sqlite:///{moved}/mlflow.db")
        assert tracker.has_file(trained.run_id, "weights.pt")
        assert tracker.fetch_file(trained.run_id, "weights.pt", tmp_path).read_text() == "weights"
        details = tracker.read_details(trained.run_id)
        assert Path(details.location).is_relative_to(moved)
        assert details.config["cell_id"] == trained.cell_id

    def test_new_runs_of_a_moved_store_write_beside_it(self, moved, small_spec, small_plan, tracking_uri):
        old = Path(tracking_uri.removeprefix("sqlite:///")).parent
        before = sorted(old.rglob("*"))
        tracker = MlflowTracker(f"sqlite:///{moved}/mlflow.db")
        desk = Desk(tracker, small_spec)
        record = desk.execute(small_plan.runs[1])
        tracker.log_text(record.run_id, "weights", "weights.pt")
        assert (moved / "mlartifacts" / "small" / record.run_id / "artifacts" / "weights.pt").is_file()
        assert sorted(old.rglob("*")) == before

    def test_mlflows_own_page_finds_the_files_of_a_moved_store(self, moved, trained, small_spec):
        uri = f"sqlite:///{moved}/mlflow.db"
        MlflowTracker(uri).prepare(small_spec.name)
        assert Path(unquote(urlsplit(MlflowClient(uri).get_run(trained.run_id).info.artifact_uri).path)).is_relative_to(
            moved
        )

    def test_a_moved_store_is_read_where_nobody_may_write(self, moved, trained, tmp_path):
        database = moved / "mlflow.db"
        content = database.read_bytes()
        MlflowTracker(f"sqlite:///{database}").fetch_file(trained.run_id, "weights.pt", tmp_path)
        assert database.read_bytes() == content

    def test_a_database_that_was_moved_without_its_files_finds_them_where_they_are(
        self, trained, tracking_uri, tmp_path, small_spec
    ):
        (tmp_path / "alone").mkdir()
        shutil.move(tracking_uri.removeprefix("sqlite:///"), tmp_path / "alone" / "mlflow.db")
        tracker = MlflowTracker(f"sqlite:///{tmp_path}/alone/mlflow.db")
        tracker.prepare(small_spec.name)
        assert tracker.has_file(trained.run_id, "weights.pt")

    def test_files_that_somebody_keeps_elsewhere_stay_there(self, tracking_uri, tmp_path, small_spec, small_plan):
        place = tmp_path / "a large disk"
        tracker = MlflowTracker(tracking_uri)
        MlflowClient(tracking_uri).create_experiment(small_spec.name, artifact_location=place.as_uri())
        record = Desk(tracker, small_spec).execute(small_plan.runs[0])
        assert (place / record.run_id / "artifacts" / "config.json").is_file()
        assert tracker.has_file(record.run_id, "config.json")
