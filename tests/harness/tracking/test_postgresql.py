"""`mlflow server` with PostgreSQL behind it: eight writers, while the server is killed and started again."""

import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from harness.execution.open_run import OpenRun
from harness.files import temporary_folder
from harness.plan import Plan
from harness.record import EpochMetrics, RunStatus
from harness.spec import ExperimentSpec
from harness.tracking import MlflowTracker
from tests.harness.tracking.test_server import Server, find_port

pytestmark = pytest.mark.slow

SPAWN = multiprocessing.get_context("spawn")
WRITERS, EPOCHS = 8, 20
PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
"""Where Debian puts them, outside of PATH."""


@pytest.fixture
def database() -> Iterator[str]:
    """The URI of an empty database of a server of its own.

    PostgreSQL refuses to work for root, and its user may not look into pytest's folders.
    """
    initdb = shutil.which("initdb", path=PROGRAMS and str(PROGRAMS)) or shutil.which("initdb")
    if initdb is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with temporary_folder() as folder:
        user = []
        if os.geteuid() == 0:
            user = ["runuser", "-u", "postgres", "--"]
            shutil.chown(folder, "postgres")
        port, data = find_port(), folder / "data"
        control = [*user, str(Path(initdb).with_name("pg_ctl")), "--pgdata", str(data), "--wait"]
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        subprocess.run(
            [*user, initdb, "--pgdata", data, "--auth", "trust", "--username", "postgres"],
            check=True, cwd="/", stdout=subprocess.DEVNULL,
        )  # fmt: skip
        subprocess.run([*control, "--log", folder / "log", "--options", options, "start"], check=True, cwd="/")
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        subprocess.run([*control, "--mode", "immediate", "stop"], check=True, cwd="/")


def write(uri: str, spec: ExperimentSpec, plan: Plan) -> None:
    """What a command does for each run of a plan that it gets, without the training."""
    tracker = MlflowTracker(uri)
    parent = tracker.start_invocation(spec, command="harness run", provenance={})
    for run in plan.runs:
        claim = tracker.claim(f"{run.row.cell.id} seed {run.seed}")
        if claim is None:
            continue
        if not [record for record in tracker.ledger([run.row.cell.id]) if record.seed == run.seed]:
            run_id = tracker.start_run(run, spec=spec, parent_id=parent, provenance={})
            open_run = OpenRun(run, spec.recipe.limits, {}, run_id)
            for epoch in range(1, EPOCHS + 1):
                metrics = {"val/top1": float(epoch), "train/images_per_second": 1.0}
                open_run.add(EpochMetrics(epoch, 10 * epoch, metrics))
                tracker.log_epoch(run_id, open_run.curve[-1])
                time.sleep(0.05)
            tracker.finish_run(run_id, open_run.to_record(RunStatus.OK))
        tracker.release(claim)
    tracker.finish_invocation(parent, RunStatus.OK, counts={})


@pytest.fixture
def server(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.chdir(tmp_path)  # for the spool
    server = Server(tmp_path, find_port(), database)
    server.start()
    yield server
    server.kill()


def test_eight_writers_write_each_run_once_while_the_server_restarts(
    server: Server, small_spec: ExperimentSpec, small_plan: Plan
) -> None:
    uri = f"http://127.0.0.1:{server.port}"
    tracker = MlflowTracker(uri)
    tracker.prepare(small_spec.name)
    writers = [SPAWN.Process(target=write, args=(uri, small_spec, small_plan)) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    while len(tracker.find_runs()) < WRITERS:
        time.sleep(0.1)
    server.kill()
    time.sleep(3.0)
    server.start()
    for writer in writers:
        writer.join(timeout=300)
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    records = tracker.ledger([row.cell.id for row in small_plan.rows], curves=["val/top1"])
    runs = sorted((record.cell_id, record.seed) for record in records)
    assert runs == sorted((run.row.cell.id, run.seed) for run in small_plan.runs)
    assert {record.status for record in records} == {RunStatus.OK}
    for record in records:
        assert [epoch.metrics["val/top1"] for epoch in record.curve] == [float(n) for n in range(1, EPOCHS + 1)]
    client = MlflowClient(uri)
    experiments = {experiment.name: experiment.experiment_id for experiment in client.search_experiments()}
    assert len(client.search_runs([experiments[small_spec.name]], "tags.kind = 'run'")) == len(small_plan.runs)
    assert not client.search_runs([experiments["claims"]], "attributes.status = 'RUNNING'")
