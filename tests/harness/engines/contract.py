"""What every engine promises; the tests of an engine are a subclass."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import psutil
import pytest

from harness.engines.engine import (
    Died,
    Engine,
    Event,
    Job,
    JobResult,
    Message,
    Place,
    Resources,
    Returned,
    Started,
    Stopped,
    TimedOut,
)
from harness.engines.worker import get_place
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


def describe_place(_report: Report) -> Place:
    return get_place()


def overlap(_report: Report, folder: Path, name: str) -> int:
    """The most jobs that this one has seen at the same time."""
    (folder / name).touch()
    seen = 0
    for _ in range(20):
        seen = max(seen, len(list(folder.iterdir())))
        time.sleep(0.02)
    (folder / name).unlink()
    return seen


def report_much(report: Report, megabytes: int) -> int:
    for number in range(3):
        report(bytes([number]) * (megabytes * 2**20))
    return megabytes


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


def take_started(events: Iterable[Event], number: int) -> list[Started]:
    """The first so many starts of jobs, and whatever comes between."""
    return list(islice((event for event in events if isinstance(event, Started)), number))


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

    def test_jobs_start_in_their_order(self) -> None:
        events = self.execute(*(Job(str(n), add, (n, n)) for n in range(3)))
        assert [event.name for event in events if isinstance(event, Started)] == list("012")

    def test_every_job_has_one_outcome(self) -> None:
        events = self.execute(*(Job(str(n), add, (n, n)) for n in range(5)), workers=2)
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
        events = self.execute(Job("slow", function, time_limit_seconds=4), Job("next", add, (1, 1)))
        assert events[2] == TimedOut("slow", "")
        assert isinstance(events[1], Message)
        assert not is_running(events[1].payload)
        assert events[-1] == Returned("next", 2, "")

    @pytest.mark.parametrize("function", [hang, ignore_sigterm_and_hang])
    def test_a_job_that_is_not_wanted_any_more_is_stopped_alone(self, function: Callable[..., None]) -> None:
        engine, seen = self.make_engine(workers=1), []
        for event in engine.execute([Job("unwanted", function), Job("next", add, (1, 1))]):
            seen.append(event)
            if isinstance(event, Message) and event.name == "unwanted":
                engine.stop("unwanted")
        assert seen[2] == Stopped("unwanted", "")
        assert isinstance(seen[1], Message)
        assert not is_running(seen[1].payload)
        assert seen[-1] == Returned("next", 2, "")

    @pytest.mark.parametrize(("megabytes", "expected"), [(10, f"got {10 * 2**20}"), (300, "refused")])
    def test_an_allocation_above_the_memory_limit_fails_inside_the_job(self, megabytes: int, expected: str) -> None:
        outcome = self.execute(Job("memory", allocate, (megabytes,), memory_limit_gb=0.1))[-1]
        assert outcome == Returned("memory", expected, "")

    def test_ctrl_c_does_not_reach_a_job(self) -> None:
        assert self.execute(Job("calm", interrupt_itself))[-1] == Returned("calm", "not disturbed", "")

    def test_closing_the_events_gives_every_outcome_once(self, tmp_path: Path) -> None:
        engine = self.make_engine(workers=3)
        jobs = [Job("ok", touch, (tmp_path / "ok",)), Job("bad", write_and_fail), Job("hangs", hang)]
        seen: list[Event] = []
        with closing(engine.execute(jobs)) as events:
            while sum(isinstance(event, Started) for event in seen) < 3:
                seen.append(next(events))
        ended = [event for event in (*seen, *engine.take_rest()) if isinstance(event, JobResult)]
        assert {event.name for event in ended} <= {"ok", "bad"}
        assert len({event.name for event in ended}) == len(ended)
        assert engine.take_rest() == []

    def test_no_more_jobs_execute_at_once_than_there_are_workers(self, tmp_path: Path) -> None:
        events = self.execute(*(Job(name, overlap, (tmp_path, name)) for name in "abcde"), workers=2)
        assert max(event.value for event in events if isinstance(event, Returned)) <= 2

    def test_a_job_that_can_never_fit_is_an_error(self) -> None:
        with pytest.raises(EngineError, match="1000"):
            self.execute(Job("large", add, (1, 1), resources=Resources(processes=1000)))

    def test_a_job_knows_its_place(self) -> None:
        place = self.execute(Job("place", describe_place, resources=Resources(processes=2)), workers=2)[-1]
        assert place == Returned("place", Place(socket.gethostname(), cpus=2), "")

    def test_large_messages_arrive_whole(self) -> None:
        events = self.execute(Job("large", report_much, (40,)))
        messages = [event.payload for event in events if isinstance(event, Message)]
        assert [(len(payload), payload[0], payload[-1]) for payload in messages] == [
            (40 * 2**20, number, number) for number in range(3)
        ]

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
        _, message, outcome = self.execute(Job("slow", hang_with_a_child, time_limit_seconds=4))
        assert outcome == TimedOut("slow", "")
        assert isinstance(message, Message)
        assert_gone(message.payload)

    def test_closing_the_events_kills_what_runs(self) -> None:
        events = self.make_engine(workers=2).execute([Job("a", hang), Job("b", hang)])
        with closing(events):
            pids = [event.pid for event in take_started(events, 2)]
        assert len(pids) == 2
        assert not any(map(is_running, pids))
