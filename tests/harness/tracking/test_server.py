"""A real MLflow server, which is asked with a password, and killed."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from harness.errors import StoreError
from harness.execution.open_run import OpenRun
from harness.plan import Plan
from harness.record import EpochMetrics, RunStatus
from harness.spec import ExperimentSpec
from harness.tracking import MlflowTracker, patience
from harness.tracking.translation import read_json_tag

pytestmark = pytest.mark.slow


@dataclass
class Server:
    """`mlflow server` on this machine; `backend` is its database, by default a file in the folder."""

    folder: Path
    port: int
    backend: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        store = (
            "--backend-store-uri",
            self.backend or f"sqlite:///{self.folder}/mlflow.db",
            "--artifacts-destination",
            str(self.folder),
        )
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mlflow", "server", "--workers", "1", "--port", str(self.port), *store],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while self.process.poll() is None:
            with suppress(OSError), opener.open(f"http://127.0.0.1:{self.port}/health", timeout=5):
                return
        raise AssertionError("the server has not started")

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def find_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, ready_database: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "mlflow.db").write_bytes(ready_database.read_bytes())
    server = Server(folder, find_port())
    server.start()
    yield server
    server.kill()


@pytest.fixture
def server(started: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that runs when a test begins."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    if started.process is None:
        started.start()
    return started


@pytest.fixture
def tracker(server: Server) -> MlflowTracker:
    return MlflowTracker(f"http://me:hunter2x@127.0.0.1:{server.port}")


def train(tracker: MlflowTracker, spec: ExperimentSpec, plan: Plan, meanwhile: Callable[[], None]) -> str:
    """One run from its beginning to its end; something happens to the server in between."""
    uri = "http://me:hunter2x@127.0.0.1 --storage postgresql://me:hun/ter2x@db/optuna?password=hunter2x"
    tracker.prepare(spec.name)
    parent = tracker.start_invocation(spec, command=f"harness run --tracking-uri {uri}", provenance={"commit": uri})
    run = plan.runs[0]
    run_id = tracker.start_run(run, spec=spec, parent_id=parent, provenance={"device": uri})
    meanwhile()
    tracker.log_epoch(run_id, EpochMetrics(1, 10, {"val/top1": 50.0}))
    tracker.log_text(run_id, f"Traceback: {uri}", "error.txt")
    tracker.finish_run(run_id, OpenRun(run, spec.recipe.limits, {}).to_record(RunStatus.FAILED, f"cannot reach {uri}"))
    tracker.finish_invocation(parent, RunStatus.OK, counts={RunStatus.OK: 1}, description=uri)
    return run_id


def test_a_password_in_the_address_is_used_and_never_stored(
    server: Server,
    tracker: MlflowTracker,
    small_spec: ExperimentSpec,
    small_plan: Plan,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run_id = train(tracker, small_spec, small_plan, lambda: None)
    run = MlflowClient(f"http://127.0.0.1:{server.port}").get_run(run_id)
    assert read_json_tag("provenance", run.data.tags)["device"].startswith("http://me:***@127.0.0.1 ")
    stored = [path for path in server.folder.rglob("*") if path.is_file()]
    assert stored
    assert not [path for path in stored if b"ter2x" in path.read_bytes()]
    assert "ter2x" not in "".join(capfd.readouterr())


def test_what_is_written_while_a_server_is_gone_is_there_once_when_it_is_back(
    server: Server,
    tracker: MlflowTracker,
    small_spec: ExperimentSpec,
    small_plan: Plan,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The run goes on without it; the next question waits for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(patience, "LONGEST_PAUSE", 1.0)
    with caplog.at_level(logging.WARNING, "harness.tracking"):
        run_id = train(tracker, small_spec, small_plan, server.kill)
        assert "does not answer: what is to be written waits in" in caplog.text
        threading.Timer(2.0, server.start).start()
        records = tracker.ledger([small_plan.rows[0].cell.id], curves=["val/top1"])
    (record,) = [found for found in records if found.run_id == run_id]
    assert "does not answer, the next attempt is in 1 s" in caplog.text
    assert "answers again: 4 writes that waited are done" in caplog.text
    assert "hunter2x" not in caplog.text
    assert record.status == RunStatus.FAILED
    assert [epoch.epoch for epoch in record.curve] == [1]
    client = MlflowClient(f"http://127.0.0.1:{server.port}")
    assert len(client.get_metric_history(run_id, "val/top1")) == 1
    assert "Traceback" in Path(client.download_artifacts(run_id, "error.txt")).read_text()
    assert not list((tmp_path / "spool").iterdir())


LEAVE = """
import sys
from pathlib import Path
from harness.record import EpochMetrics
from harness.tracking import MlflowTracker, patience
from harness.tracking.mlflow_tracker import MlflowTracker
from harness.reading import load_spec
from harness.plan import make_plan

uri, path = sys.argv[1:]
tracker, spec = MlflowTracker(uri), load_spec(Path(path))
plan = make_plan(spec)
tracker.prepare(spec.name)
parent = tracker.start_invocation(spec, command="harness run", provenance={})
run_id = tracker.start_run(plan.runs[0], spec=spec, parent_id=parent, provenance={})
print(run_id, flush=True)
input()
tracker.log_epoch(run_id, EpochMetrics(1, 10, {"val/top1": 50.0}))
print("written", flush=True)
input()
"""


def test_what_a_killed_process_could_not_write_the_next_command_writes(
    server: Server, tmp_path: Path, small_spec: ExperimentSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"http://127.0.0.1:{server.port}"
    process = subprocess.Popen(
        [sys.executable, "-c", LEAVE, uri, "table1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    server.kill()
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "written\n"
    process.kill()
    process.communicate()
    server.start()
    tracker = MlflowTracker(uri)
    tracker.prepare(small_spec.name)
    (point,) = MlflowClient(uri).get_metric_history(run_id, "val/top1")
    assert (point.step, point.value) == (1, 50.0)
    assert not list((tmp_path / "spool").iterdir())


def test_after_an_interruption_nobody_waits_for_a_server(
    server: Server,
    tracker: MlflowTracker,
    small_spec: ExperimentSpec,
    small_plan: Plan,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)

    def leave() -> None:
        server.kill()
        tracker.shorten_timeouts()

    started = time.monotonic()
    train(tracker, small_spec, small_plan, leave)
    with pytest.raises(StoreError, match=r"cannot be used") as caught:
        tracker.ledger([small_plan.rows[0].cell.id])
    assert time.monotonic() - started < patience.SECONDS_TO_WAIT / 2
    assert "hunter2x" not in str(caught.value)
