import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.engines.engine import Died, Engine, Job, Message, Returned
from harness.engines.imports import Imports
from harness.engines.local import LocalEngine, _await_end_of_server
from harness.errors import EngineError
from tests.harness.engines.contract import (
    EngineContract,
    Report,
    add,
    assert_gone,
    hang,
    take_started,
    touch,
    write_and_fail,
)


def list_places(_report: Report) -> dict[str, str]:
    return Imports.here().places


def kill_server(_report: Report) -> None:
    """The process that has started this one."""
    os.kill(os.getppid(), signal.SIGKILL)


class TestLocalEngine(EngineContract):
    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("harness.engines.local.GRACE_SECONDS", 0.2)

    def make_engine(self, *, workers: int) -> Engine:
        return LocalEngine(workers=workers)

    def test_closing_the_events_loses_no_outcome_that_has_arrived(self, tmp_path: Path) -> None:
        engine = self.make_engine(workers=3)
        jobs = [Job("ok", touch, (tmp_path / "ok",)), Job("bad", write_and_fail), Job("hangs", hang)]
        with closing(engine.execute(jobs)) as events:
            pids = [event.pid for event in take_started(events, 3)]
            psutil.wait_procs([psutil.Process(pid) for pid in pids[:2] if psutil.pid_exists(pid)], timeout=30)
        rest = {event.name: event for event in engine.take_rest() if not isinstance(event, Message)}
        assert rest.keys() == {"ok", "bad"}
        assert rest["ok"] == Returned("ok", "done", "")
        assert isinstance(rest["bad"], Died)
        assert engine.take_rest() == []

    def test_jobs_after_one_that_has_lost_its_server_have_a_new_one(self) -> None:
        """However little time lies between; the server may not be known to be dead yet."""
        pairs = [(Job(f"lost {number}", kill_server), Job(f"{number}", add, (1, 2))) for number in range(5)]
        jobs = [job for pair in pairs for job in pair]
        results = [event for event in self.make_engine(workers=1).execute(jobs) if isinstance(event, Died | Returned)]
        assert [event.name for event in results] == [job.name for job in jobs]
        added = [event for event in results if not event.name.startswith("lost")]
        assert [event.value for event in added if isinstance(event, Returned)] == [3] * 5

    def test_it_needs_a_worker(self) -> None:
        with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
            self.make_engine(workers=0)

    @pytest.mark.parametrize("workers", [1, 1000])
    def test_a_worker_has_one_thread_however_many_there_are(self, workers: int) -> None:
        assert self.make_engine(workers=workers).threads == 1

    def test_the_environment_of_this_process_stays_as_it_was(self) -> None:
        before = dict(os.environ)
        self.make_engine(workers=1)
        assert dict(os.environ) == before


SCRIPT = """
from harness.engines.engine import Job
from harness.engines.local import LocalEngine
from tests.harness.engines.contract import environment, hang_with_the_lock, imported

if __name__ == "__main__":
    engine = LocalEngine(workers=1000, preload=["wave"])
    jobs = [Job("wave", imported, ("wave",)), Job("OMP", environment, ("OMP_NUM_THREADS",))]
    jobs += [Job("hang", hang_with_the_lock)]
    for event in engine.execute(jobs):
        told = [getattr(event, name, "") for name in ("value", "payload", "exit_code")]
        print(event.name, *filter(None, told), flush=True)
"""


@pytest.fixture
def script(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A program with an engine whose last job hangs."""
    path = tmp_path / "program.py"
    path.write_text(SCRIPT)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    foreground = ("env", "--default-signal=INT")  # whoever runs the tests in the background has it ignored
    program = subprocess.Popen([*foreground, sys.executable, path], stdout=subprocess.PIPE, text=True, env=env)
    yield program
    program.kill()
    program.wait()
    assert program.stdout is not None
    program.stdout.close()


def read_results(program: subprocess.Popen[str]) -> dict[str, str]:
    """What each of the three jobs returned or reported."""
    assert program.stdout is not None
    words = (line.split() for line in program.stdout)
    return dict(islice((pair for pair in words if len(pair) == 2), 3))


IMPORTS = """
import sys
from harness.engines.engine import Job
from harness.engines.imports import Imports
from harness.engines.local import LocalEngine
from harness.errors import HarnessError
from tests.harness.engines.test_local import list_places

if __name__ == "__main__":
    if sys.argv[1:]:  # this process has its own timm, which workers do not find
        sys.path.insert(0, sys.argv[1])
        import timm
        sys.path.remove(sys.argv[1])
    try:
        events = list(LocalEngine(workers=1, preload=["PIL"]).execute([Job("places", list_places)]))
        print("same" if events[-1].value == Imports.here().places else events[-1])
    except HarnessError as error:
        print(error)
"""


def run_in_a_folder_of_namesakes(folder: Path, *arguments: object) -> str:
    """What the program prints in a working directory whose modules are called like those of a run."""
    for name in ("harness", "paradigms", "timm", "PIL", "random"):
        (folder / "here" / name).mkdir(parents=True)
        (folder / "here" / name / "__init__.py").write_text("raise SystemExit('imported from the working directory')")
    (folder / "own" / "timm").mkdir(parents=True)
    (folder / "own" / "timm" / "__init__.py").touch()
    (folder / "program.py").write_text(IMPORTS)
    command = [sys.executable, folder / "program.py", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, cwd=folder / "here", env=env, capture_output=True, text=True, check=False)
    return f"{done.stdout}{done.stderr}".strip()


def test_workers_import_what_the_program_imports_and_nothing_from_the_working_directory(tmp_path: Path) -> None:
    assert run_in_a_folder_of_namesakes(tmp_path) == "same"


def test_workers_refuse_to_execute_with_other_packages_than_the_program_has(tmp_path: Path) -> None:
    told = run_in_a_folder_of_namesakes(tmp_path, tmp_path / "own")
    assert re.match(
        rf"workers would import timm from \S+, but this command imported it from {tmp_path}/own/timm/", told
    )


def test_workers_refuse_code_that_was_edited_while_they_started(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = LocalEngine(workers=2)
    monkeypatch.setattr(engine, "_imports", replace(Imports.here(), sources="edited since"))
    with pytest.raises(EngineError, match="edited while the workers started"):
        list(engine.execute([Job("a", add, (1, 1)), Job("b", hang)]))
    assert engine.take_rest() == []


def test_workers_start_with_the_preloaded_modules_and_the_thread_environment(script: subprocess.Popen[str]) -> None:
    results = read_results(script)
    assert (results["wave"], results["OMP"]) == ("True", "1")


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),  # to the program the same as SIGTERM
        signal.SIGINT,
        signal.SIGTERM,
    ],
)
def test_workers_and_their_children_die_with_the_program(script: subprocess.Popen[str], kill: signal.Signals) -> None:
    worker, child = map(int, read_results(script)["hang"].split(","))
    server = psutil.Process(worker).ppid()
    script.send_signal(kill)
    script.wait(timeout=10)
    assert_gone([worker, child, server])


def test_workers_die_with_a_server_that_is_killed(script: subprocess.Popen[str]) -> None:
    worker, _ = map(int, read_results(script)["hang"].split(","))
    psutil.Process(worker).parent().kill()
    assert script.stdout is not None
    assert script.stdout.read().split() == ["hang", "-9"]
    assert script.wait(timeout=10) == 0
    assert_gone([worker])


def test_a_server_of_which_one_thread_still_ends_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """To psutil it is a zombie; `waitpid`, which multiprocessing asks, does not return it yet."""
    code = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(2,)).start(); "
    dying = subprocess.Popen([sys.executable, "-c", code + "ctypes.CDLL(None).pthread_exit(None)"])
    deadline = time.monotonic() + 60
    while psutil.Process(dying.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    server: Any = forkserver.ForkServer()
    server._forkserver_pid, server._forkserver_alive_fd = dying.pid, os.open(os.devnull, os.O_RDONLY)
    monkeypatch.setattr(forkserver, "_forkserver", server)
    _await_end_of_server()
    assert server._forkserver_pid != dying.pid
    server._stop()
