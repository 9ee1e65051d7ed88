"""Servers that a user looks at: real ones, in processes of their own."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from harness.commands import ui
from harness.commands.ui import find_mlflow_page, find_search_page
from harness.errors import HarnessError, ServerError, StoreError
from harness.tracking.store import Store

ROOT = Path(__file__).parents[3]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "harness.cli", "ui", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def read_address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    found = (re.search(r"open (http://\S+)", line) for line in process.stdout)
    match = next((match for match in found if match), None)
    assert match is not None, "the server ended before it answered"
    return match[1]


def list_hosts(family: list[psutil.Process]) -> set[tuple[str, int]]:
    """Where these processes listen."""
    return {
        (connection.laddr.ip, connection.laddr.port)
        for process in family
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_mlflow_answers_on_this_machine_alone_and_leaves_nothing_behind(
    tracking_uri: str, tmp_path: Path, number: signal.Signals
) -> None:
    process = start(tmp_path, "--tracking-uri", tracking_uri)
    try:
        address = read_address(process)
        family = psutil.Process(process.pid).children(recursive=True)
        address = address.partition("/#")[0].rstrip("/")
        with urllib.request.urlopen(f"{address}/", timeout=30) as answer:
            assert b"MLflow" in answer.read()
        assert len(family) == 2
        assert list_hosts(family) == {("127.0.0.1", int(address.rpartition(":")[2]))}
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
        assert not any(member.is_running() for member in family)
        assert list(tmp_path.glob("mlartifacts")) == []
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.slow
def test_the_dashboard_shows_a_journal(tracking_uri: str, tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    pytest.importorskip("optuna_dashboard")
    from optuna.storages.journal import JournalFileBackend

    journal = Store(tracking_uri).journal
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
    optuna.create_study(storage=storage, study_name="a search")
    with closing(socket.create_server(("127.0.0.1", 0))) as found:
        port = found.getsockname()[1]
    process = start(tmp_path, "--tracking-uri", tracking_uri, "--search", "--port", str(port))
    try:
        address = read_address(process)
        assert address == f"http://127.0.0.1:{port}/"
        with urllib.request.urlopen(f"{address}api/studies", timeout=30) as answer:
            assert b"a search" in answer.read()
        rebound = urllib.request.Request(
            f"{address}api/studies/0", method="DELETE", headers={"Host": f"evil.example:{port}"}
        )
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(rebound, timeout=30)
        assert [study.study_name for study in storage.get_all_studies()] == ["a search"]
        family = psutil.Process(process.pid).children(recursive=True)
        assert list_hosts(family) == {("127.0.0.1", port)}
        process.terminate()
        assert process.wait(timeout=30) == 0
        assert not any(member.is_running() for member in family)
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_a_port_that_is_taken_is_told(tracking_uri: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} is in use"):
            ui.serve(find_mlflow_page(Store(tracking_uri)), port=port, announce=print)


def test_a_server_that_ends_by_itself_is_told_with_its_last_words() -> None:
    page = ui.Page((sys.executable, "-c", "raise SystemExit('no such option')"), 0, "nothing", "health")
    with pytest.raises(ServerError, match="no such option"):
        ui.serve(page, port=None, announce=print)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("sqlite:///nothing.db", "there is no store yet"), ("http://127.0.0.1:1", "cannot be used")],
)
def test_without_a_store_there_is_nothing_to_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=expected):
        find_mlflow_page(Store(given))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_search_and_a_missing_extra_are_one_message(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tracking_uri)
    monkeypatch.setattr(ui, "find_spec", lambda _name: object())
    with pytest.raises(StoreError, match=r"no search is stored at .*optuna\.journal"):
        find_search_page(None, store)
    with pytest.raises(StoreError, match=r"storage nothing://here cannot be used"):
        find_search_page("nothing://here", store)
    monkeypatch.setattr(ui, "find_spec", lambda _name: None)
    with pytest.raises(HarnessError, match=r"pip install --editable '\.\[dashboard\]'"):
        find_search_page(None, store)
