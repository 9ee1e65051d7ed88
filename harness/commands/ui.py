"""`harness ui`: serves MLflow's page, or optuna-dashboard, on this machine until Ctrl-C."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import psutil

from harness.errors import ServerError, StoreError
from harness.search.storage import open_storage, show_storage
from harness.tracking import MlflowTracker
from harness.tracking.store import Store

LOOPBACK = "127.0.0.1"
MAX_PORT = 65535
START_SECONDS = 120
GRACE_SECONDS = 5
PATIENCE = 0.2
"""Seconds between two checks of a server."""

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals of Ctrl-C, `kill`, and a closed terminal: each ends the server, which is not an error."""


@dataclass(frozen=True)
class Page:
    """A server to start.

    Attributes:
        command: the command without the port.
        port: the default port of the server, used if it is free.
        shows: the content of the page, in words.
        health: the path that answers when the server is ready.
        environment: additional environment variables.
        path: the path of the first page.
    """

    command: tuple[str, ...]
    port: int
    shows: str
    health: str
    environment: Mapping[str, str] = field(default_factory=dict)
    path: str = ""


def find_mlflow_page(store: Store, experiment: str | None = None) -> Page:
    """MLflow's page of a store, opened at the runs of an experiment; with two processes and without telemetry.

    Raises:
        StoreError: there is no store yet, it cannot be used, it has no such experiment, or it is a server, which has
            its own page.
    """
    if store.is_new:
        raise StoreError(f"there is no store yet at {store.shown}; `harness run` creates it")
    store.check()
    if store.uri.startswith(("http:", "https:", "databricks")):
        address = f"{store.shown.rstrip('/')}/{MlflowTracker(store.uri).find_page(experiment)}"
        raise StoreError(f"the tracking store is a server with a page of its own: open {address}")
    with suppress(sqlite3.Error):  # a read-only store is shown without changes
        store.relocate()
    return Page(
        (sys.executable, "-P", "-m", "mlflow", "server", "--workers", "1", "--host", LOOPBACK),
        5000,
        f"MLflow shows {store.shown}",
        "health",
        {
            "MLFLOW_BACKEND_STORE_URI": store.uri,  # it may contain a password; everyone can read command lines
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        MlflowTracker(store.uri).find_page(experiment),
    )


def find_search_page(storage: str | None, store: Store) -> Page:
    """optuna-dashboard on a journal file or URL; by default the journal of the searches of the store.

    Raises:
        StoreError: there is no such file, or it is damaged.
        ServerError: optuna-dashboard is not installed.
    """
    if find_spec("optuna_dashboard") is None:
        raise ServerError("optuna-dashboard is not installed; install it: pip install --editable '.[dashboard]'")
    place = str(store.journal) if storage is None else _to_absolute(storage)
    is_url = "://" in place
    if not is_url and not Path(place).is_file():
        raise StoreError(f"no search is stored at {place}; `harness search` creates one, `--search PATH` names another")
    open_storage(place)
    command = (sys.executable, "-P", "-m", "harness.commands.dashboard", place, "--host", LOOPBACK)
    return Page(command, 8080, f"optuna-dashboard shows {show_storage(place)}", "dashboard")


def _to_absolute(storage: str) -> str:
    """Make the path of a file or SQLite database absolute; addresses of servers are not changed."""
    prefix = "sqlite:///"
    if "://" in storage and not storage.startswith(prefix):
        return storage
    path = storage.removeprefix(prefix)
    return f"{prefix if path != storage else ''}{Path(path).absolute()}"


def serve(page: Page, *, port: int | None, announce: Callable[[str], None]) -> None:
    """Start the server, call `announce` with its address when it answers, and return when a signal has ended it.

    The server has its own process group, which is ended as a whole.

    Raises:
        ServerError: the port is taken, the server does not start, or it ends by itself.
    """
    chosen = _choose_port(page.port, port)
    address = f"http://{LOOPBACK}:{chosen}"
    with _collect_signals() as signals, tempfile.TemporaryFile() as output, tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [*page.command, "--port", str(chosen)],
            env={**os.environ, "PYTHONSAFEPATH": "1", **page.environment},
            cwd=folder,  # uvicorn imports from its working directory
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            if _wait_for_answer(f"{address}/{page.health}", process, signals):
                announce(f"{address}/{page.path}")
                while process.poll() is None and not signals:
                    time.sleep(PATIENCE)
            if not signals:
                raise ServerError(f"the server has ended or does not answer: {_read_last_line(output)}")
        finally:
            _end_group(process)


def _choose_port(usual: int, asked: int | None) -> int:
    if asked is not None:
        if asked > MAX_PORT:
            raise ServerError(f"a port is a number from 1 to {MAX_PORT}, got {asked}")
        if not _is_free(asked):
            raise ServerError(f"port {asked} is in use; without --port a free port is chosen")
        return asked
    if _is_free(usual):
        return usual
    with closing(socket.create_server((LOOPBACK, 0))) as found:
        return int(found.getsockname()[1])


def _is_free(port: int) -> bool:
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        return False
    return True


@contextmanager
def _collect_signals() -> Iterator[list[int]]:
    """Collect the signals that would end this process, so that the server is always ended first.

    They are collected in a list, not a `threading.Event`: the code that a signal interrupts may hold the event's lock.
    """
    signals: list[int] = []
    before = {number: signal.signal(number, lambda number, _frame: signals.append(number)) for number in ENDING}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_for_answer(address: str, process: subprocess.Popen[bytes], signals: Sequence[int]) -> bool:
    """Wait until the server answers; returns False if it ends before."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline and not signals:
        time.sleep(PATIENCE)
        with suppress(OSError, HTTPException), opener.open(address, timeout=GRACE_SECONDS):
            if _is_listening(process, urlsplit(address).port):
                return True
    return False


def _is_listening(process: subprocess.Popen[bytes], port: int | None) -> bool:
    """Whether this server answers, not another one that took the port at the same time."""
    with suppress(psutil.NoSuchProcess):
        leader = psutil.Process(process.pid)
        sockets = [found for member in (leader, *leader.children(recursive=True)) for found in member.net_connections()]
        return any(found.status == psutil.CONN_LISTEN and found.laddr.port == port for found in sockets)
    return False


def _read_last_line(output: IO[bytes]) -> str:
    output.seek(0)
    lines = output.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the server and its children: terminate, wait, then kill."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE_SECONDS
        while _is_there(process) and time.monotonic() < deadline:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            time.sleep(PATIENCE)


def _is_there(process: subprocess.Popen[bytes]) -> bool:
    """Whether any process of the group is left; a leader that has ended is reaped first."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
