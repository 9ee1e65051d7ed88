import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import psutil
import pytest

from harness.engines import ENGINES
from harness.engines.engine import Died, Engine, Event, Job, Message, Returned, Started, Stopped, TimedOut
from harness.engines.imports import Imports
from harness.engines.local import LocalEngine
from harness.errors import EngineError

Report = Callable[[object], None]


def add(report: Report, a: int, b: int) -> int:
    report({"a": a})
    report({"b": b})
    return a + b


def write_and_fail(_report: Report) -> None:
    sys.stdout.write("about to fail\n")
    sys.stdout.flush()
    raise ZeroDivisionError("the reason")


def kill_itself(report: Report) -> None:
    report("last words")
    os.kill(os.getpid(), signal.SIGKILL)


def abort_without_memory(_report: Report) -> None:
    sys.stderr.write("terminate called after throwing an instance of 'std::bad_alloc'\n")
    sys.stderr.flush()
    os.abort()


def hang(report: Report) -> None:
    report(os.getpid())
    time.sleep(600)


def ignore_sigterm_and_hang(report: Report) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hang(report)


def allocate(_report: Report, megabytes: int) -> str:
    try:
        return f"got {len(bytearray(megabytes * 2**20))}"
    except MemoryError:
        return "refused"


def interrupt_itself(_report: Report) -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return "not disturbed"


def return_something_that_cannot_travel(_report: Report) -> Callable[[], None]:
    return lambda: None


def meet(_report: Report, folder: Path, name: str, others: int) -> int:
    """Returns once `others` more are seen at the same time."""
    (folder / name).touch()
    while len(list(folder.iterdir())) <= others:
        time.sleep(0.01)
    return os.getpid()


def imported(_report: Report, module: str) -> bool:
    return module in sys.modules


def environment(_report: Report, name: str) -> str | None:
    return os.environ.get(name)


def touch(_report: Report, path: Path) -> str:
    path.touch()
    return "done"


def leave_a_thread() -> int:
    threading.Thread(target=time.sleep, args=(600,), daemon=False).start()
    return os.getpid()


def leave_a_process() -> int:
    return subprocess.Popen(["sleep", "600"]).pid


def leave_behind(report: Report, leave: Callable[[], int], fails: bool) -> str:
    report(leave())
    if fails:
        raise ZeroDivisionError("the reason")
    return "done"


def hang_with_a_child(report: Report) -> None:
    sessions = [subprocess.Popen(["sleep", "600"], start_new_session=new).pid for new in (False, True)]
    report([os.getpid(), *sessions])
    time.sleep(600)


def hang_with_the_lock(report: Report) -> None:
    """Like `hang`, but no other thread of the process gets a turn."""
    report(f"{os.getpid()},{leave_a_process()}")
    ctypes.PyDLL(None).sleep(600)


def list_places(_report: Report) -> dict[str, str]:
    return Imports.here().places


def assert_gone(pids: Iterable[int]) -> None:
    """Killed processes end in their own time, and where nobody reaps orphans they stay as zombies."""
    deadline = time.monotonic() + 10
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_running, pids))


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class EngineContract:
    """What holds for every engine; a subclass gives `make_engine`."""

    def make_engine(self, *, workers: int) -> Engine:
        raise NotImplementedError

    def execute(self, *jobs: Job, workers: int = 1) -> list[Event]:
        return list(self.make_engine(workers=workers).execute(jobs))

    def test_no_job_gives_no_event(self) -> None:
        assert self.execute() == []

    def test_a_job_starts_reports_and_returns_in_this_order(self) -> None:
        started, *others = self.execute(Job("sum", add, (2, 3)))
        assert isinstance(started, Started)
        assert others == [Message("sum", {"a": 2}), Message("sum", {"b": 3}), Returned("sum", 5, "")]

    def test_jobs_start_in_their_order_and_every_one_has_one_outcome(self) -> None:
        events = self.execute(*(Job(str(n), add, (n, n)) for n in range(5)), workers=2)
        assert [event.name for event in events if isinstance(event, Started)] == list("01234")
        values = {event.name: event.value for event in events if isinstance(event, Returned)}
        assert values == {str(n): 2 * n for n in range(5)}

    def test_jobs_execute_at_once_in_processes_of_their_own(self, tmp_path: Path) -> None:
        events = self.execute(*(Job(name, meet, (tmp_path, name, 1)) for name in "ab"), workers=2)
        pids = {event.value for event in events if isinstance(event, Returned)}
        assert len(pids) == 2
        assert os.getpid() not in pids

    def test_a_job_is_pulled_when_there_is_room_for_it(self) -> None:
        pulled: list[int] = []

        def jobs() -> Iterator[Job]:
            for n in range(3):
                pulled.append(n)
                yield Job(str(n), add, (n, n))

        with closing(self.make_engine(workers=1).execute(jobs())) as events:
            for event in events:
                assert len(pulled) == int(event.name) + 1

    def test_an_exception_ends_its_job_alone_and_leaves_its_traceback(self) -> None:
        events = self.execute(Job("bad", write_and_fail), Job("good", add, (1, 1)))
        died = events[1]
        assert isinstance(died, Died)
        assert died.exit_code == 1
        assert died.output.startswith("about to fail")
        assert "ZeroDivisionError: the reason" in died.output
        assert events[-1] == Returned("good", 2, "")

    def test_a_value_that_cannot_be_sent_is_an_exception_of_the_job(self) -> None:
        died = self.execute(Job("lambda", return_something_that_cannot_travel))[-1]
        assert isinstance(died, Died)
        assert "pickle" in died.output

    def test_a_killed_process_is_told_with_its_signal_after_what_it_sent(self) -> None:
        _, message, died = self.execute(Job("victim", kill_itself))
        assert message == Message("victim", "last words")
        assert died == Died("victim", -signal.SIGKILL, "")

    def test_code_that_gets_no_memory_and_aborts_has_run_out_of_memory(self) -> None:
        died = self.execute(Job("C++", abort_without_memory))[-1]
        assert isinstance(died, Died)
        assert (died.exit_code, died.is_out_of_memory) == (-signal.SIGABRT, True)

    @pytest.mark.parametrize("function", [hang, ignore_sigterm_and_hang])
    def test_a_job_is_killed_at_its_time_limit(self, function: Callable[..., None]) -> None:
        events = self.execute(Job("slow", function, time_limit_seconds=1), Job("next", add, (1, 1)))
        assert events[2] == TimedOut("slow", "")
        pid = events[1].payload if isinstance(events[1], Message) else -1
        assert not psutil.pid_exists(pid)
        assert events[-1] == Returned("next", 2, "")

    @pytest.mark.parametrize("function", [hang, ignore_sigterm_and_hang])
    def test_a_job_that_is_not_wanted_any_more_is_stopped_alone(self, function: Callable[..., None]) -> None:
        engine, seen = self.make_engine(workers=1), []
        for event in engine.execute([Job("unwanted", function), Job("next", add, (1, 1))]):
            seen.append(event)
            if isinstance(event, Message) and event.name == "unwanted":
                engine.stop("unwanted")
        assert seen[2] == Stopped("unwanted", "")
        assert not psutil.pid_exists(seen[1].payload if isinstance(seen[1], Message) else -1)
        assert seen[-1] == Returned("next", 2, "")

    @pytest.mark.parametrize(("megabytes", "expected"), [(10, f"got {10 * 2**20}"), (300, "refused")])
    def test_an_allocation_above_the_memory_limit_fails_inside_the_job(self, megabytes: int, expected: str) -> None:
        outcome = self.execute(Job("memory", allocate, (megabytes,), memory_limit_gb=0.1))[-1]
        assert outcome == Returned("memory", expected, "")

    def test_ctrl_c_does_not_reach_a_job(self) -> None:
        assert self.execute(Job("calm", interrupt_itself))[-1] == Returned("calm", "not disturbed", "")

    def test_closing_the_events_loses_no_outcome_that_has_arrived(self, tmp_path: Path) -> None:
        engine = self.make_engine(workers=3)
        jobs = [Job("ok", touch, (tmp_path / "ok",)), Job("bad", write_and_fail), Job("hangs", hang)]
        with closing(engine.execute(jobs)) as events:
            pids = [event.pid for event in islice(events, 3) if isinstance(event, Started)]
            psutil.wait_procs([psutil.Process(pid) for pid in pids[:2] if psutil.pid_exists(pid)], timeout=30)
        rest = {event.name: event for event in engine.take_rest() if not isinstance(event, Message)}
        assert rest.keys() == {"ok", "bad"}
        assert rest["ok"] == Returned("ok", "done", "")
        assert isinstance(rest["bad"], Died)
        assert engine.take_rest() == []

    @pytest.mark.parametrize("leave", [leave_a_thread, leave_a_process])
    @pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
    def test_what_a_job_leaves_behind_ends_with_it(self, leave: Callable[[], int], fails: bool) -> None:
        events = self.execute(Job("untidy", leave_behind, (leave, fails)), Job("next", add, (1, 1)))
        assert isinstance(events[1], Message)
        outcome = events[2]
        if fails:
            assert isinstance(outcome, Died)
            assert outcome.exit_code == 1
            assert "ZeroDivisionError: the reason" in outcome.output
        else:
            assert outcome == Returned("untidy", "done", "")
        assert_gone([events[1].payload])
        assert events[-1] == Returned("next", 2, "")

    def test_what_a_job_has_started_ends_with_it_at_its_time_limit(self) -> None:
        _, message, outcome = self.execute(Job("slow", hang_with_a_child, time_limit_seconds=1))
        assert outcome == TimedOut("slow", "")
        assert isinstance(message, Message)
        assert_gone(message.payload)

    def test_closing_the_events_kills_what_runs(self) -> None:
        events = self.make_engine(workers=2).execute([Job("a", hang), Job("b", hang)])
        with closing(events):
            pids = [event.pid for event, _ in zip(events, range(2), strict=False) if isinstance(event, Started)]
        assert len(pids) == 2
        assert not any(psutil.pid_exists(pid) for pid in pids)


class TestLocalEngine(EngineContract):
    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("harness.engines.local.GRACE_SECONDS", 0.2)

    def make_engine(self, *, workers: int) -> Engine:
        return ENGINES["local"](workers=workers)

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
from tests.harness.engines.test_local import environment, hang_with_the_lock, imported

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
