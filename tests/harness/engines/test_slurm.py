import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.engines.engine import Died, Engine, Event, Job, Message, Returned, Started, Stopped
from harness.engines.options import Setting
from harness.engines.queue import SlurmQueue
from harness.engines.slurm import SlurmOptions
from tests.harness.engines import fake_slurm
from tests.harness.engines.contract import EngineContract, Report, add, take_started

pytest.importorskip("submitit")


def wait_for(report: Report, path: Path) -> None:
    report("waiting")
    while not path.exists():
        time.sleep(0.02)


def count_up(report: Report, counter: Path, go: Path, attempts: int = 2) -> int:
    """Adds one to a number in a file, then waits; before the last attempt SIGTERM alone ends it, after a checkpoint."""
    number = int(counter.read_text()) + 1 if counter.exists() else 1
    counter.write_text(str(number))

    def end(*_: object) -> None:
        counter.with_name("checkpoint").touch()
        os._exit(1)

    signal.signal(signal.SIGTERM, end)
    report(number)
    while not (go.exists() and number >= attempts):
        time.sleep(0.02)
    return number


def take_until_message(events: Iterable[Event]) -> int:
    """Until the first message; the number of the process that has sent it."""
    pid = 0
    for event in events:
        if isinstance(event, Message):
            return pid
        pid = event.pid if isinstance(event, Started) else pid
    raise AssertionError


@pytest.mark.slow
class TestOnThisMachine(EngineContract):
    """Submitit's local executor."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        self.folder = tmp_path_factory.mktemp("store")
        yield
        for process in psutil.process_iter(["cmdline"]):
            if str(self.folder) in " ".join(process.info["cmdline"] or []):
                process.kill()

    def make_engine(self, *, workers: int) -> Engine:
        options = SlurmOptions(cluster="local", poll_seconds=0.05, grace_seconds=0.2)
        return options.build(Setting(workers, 1, (), self.folder))

    @pytest.mark.skip("this queue takes everything; Slurm refuses such a job itself")
    def test_a_job_that_can_never_fit_is_an_error(self) -> None: ...

    @pytest.mark.skip("jobs outlive their caller")
    def test_closing_the_events_kills_what_runs(self) -> None: ...

    def test_a_later_command_continues_with_a_job_that_it_finds(self, tmp_path: Path) -> None:
        job = Job("first", wait_for, (tmp_path / "go",), key="same")
        with closing(self.make_engine(workers=1).execute([job])) as events:
            assert next(message for message in events if isinstance(message, Message)).payload == "waiting"
        (tmp_path / "go").touch()
        later = list(self.make_engine(workers=1).execute([replace(job, name="second")]))
        assert [type(event) for event in later] == [Started, Message, Returned]
        assert {event.name for event in later} == {"second"}
        assert not list((self.folder / "slurm").glob("same"))

    def test_a_job_that_ended_while_nobody_listened_is_not_executed_again(self, tmp_path: Path) -> None:
        job = Job("job", count_up, (tmp_path / "count", tmp_path / "go", 1), key="same")
        with closing(self.make_engine(workers=1).execute([job])) as events:
            process = psutil.Process(take_until_message(events))
        (tmp_path / "go").touch()
        process.wait(timeout=30)
        assert list(self.make_engine(workers=1).execute([job]))[-1] == Returned("job", 1, "")

    def test_what_waits_can_be_cancelled_by_the_command_that_is_shown(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        job = Job("job", count_up, (tmp_path / "count", tmp_path / "go"), key="same")
        with closing(self.make_engine(workers=1).execute([job])) as events:
            process = psutil.Process(take_until_message(events))
        command = caplog.messages[-1].partition("to cancel them: ")[2].split()
        subprocess.run(command, check=True)
        process.wait(timeout=30)
        (tmp_path / "go").touch()
        assert list(self.make_engine(workers=1).execute([job]))[-1] == Returned("job", 2, "")

    def test_a_job_whose_place_is_taken_is_queued_again_and_continues(self, tmp_path: Path) -> None:
        """As Slurm does at the end of a job's time: SIGUSR2 to all of its processes."""
        job = Job("job", count_up, (tmp_path / "count", tmp_path / "go"), time_limit_seconds=100)
        events: list[Event] = []
        for event in self.make_engine(workers=1).execute([job]):
            events.append(event)
            if isinstance(event, Message) and event.payload == 1:
                agent = psutil.Process(take_started(events, 1)[0].pid).parent().parent()
                for process in (*agent.children(recursive=True), agent):
                    process.send_signal(signal.SIGUSR2)
                (tmp_path / "go").touch()
        assert (tmp_path / "checkpoint").exists()
        assert [event.payload for event in events if isinstance(event, Message)] == [1, 2]
        assert sum(isinstance(event, Started) for event in events) == 2
        assert events[-1] == Returned("job", 2, "")

    def test_a_job_that_is_lost_without_a_trace_is_submitted_again(self, tmp_path: Path) -> None:
        job = Job("job", count_up, (tmp_path / "count", tmp_path / "go"))
        events: list[Event] = []
        for event in self.make_engine(workers=1).execute([job]):
            events.append(event)
            if isinstance(event, Message) and event.payload == 1:
                agent = psutil.Process(take_started(events, 1)[0].pid).parent().parent()
                for process in (agent.parent(), agent):
                    process.kill()
                (tmp_path / "go").touch()
        assert events[-1] == Returned("job", 2, "")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The commands of Slurm in PATH; the folder of their jobs."""
    folder, commands = tmp_path / "jobs", tmp_path / "bin"
    for each in (folder, commands):
        each.mkdir()
    for name in ("sbatch", "srun", "squeue", "scancel", "scontrol"):
        (commands / name).write_text(f"#!{sys.executable}\n{Path(fake_slurm.__file__).read_text()}")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setattr("harness.engines.queue.SECONDS_BETWEEN_LISTS", 0.2)
    monkeypatch.setattr(SlurmQueue, "patience", 0.5)
    return folder


@pytest.mark.slow
class TestThroughTheCommandsOfSlurm:
    def make_engine(self, folder: Path, *, workers: int) -> Engine:
        return SlurmOptions(poll_seconds=0.05, grace_seconds=2).build(Setting(workers, 1, (), folder))

    def test_jobs_are_submitted_as_one_array(self, slurm: Path, tmp_path: Path) -> None:
        jobs = [Job(str(n), add, (n, n)) for n in range(3)]
        events = list(self.make_engine(tmp_path, workers=3).execute(jobs))
        assert {event.name: event.value for event in events if isinstance(event, Returned)} == {"0": 0, "1": 2, "2": 4}
        assert [path.name for path in slurm.glob("*.sh")] == ["100.sh"]

    @pytest.mark.usefixtures("slurm")
    def test_a_job_that_somebody_cancels_is_interrupted(self, tmp_path: Path) -> None:
        engine, events = self.make_engine(tmp_path, workers=1), list[Event]()
        for event in engine.execute([Job("job", wait_for, (tmp_path / "never",))]):
            events.append(event)
            if isinstance(event, Message):
                subprocess.run(["scancel", "100"], check=True)
        assert events[-1] == Died("job", -signal.SIGTERM, "")

    def test_a_pruned_job_is_cancelled(self, slurm: Path, tmp_path: Path) -> None:
        engine, events = self.make_engine(tmp_path, workers=1), list[Event]()
        for event in engine.execute([Job("job", wait_for, (tmp_path / "never",))]):
            events.append(event)
            if isinstance(event, Message):
                engine.stop("job")
        assert events[-1] == Stopped("job", "")
        assert (slurm / "100.cancelled").exists()

    @pytest.mark.usefixtures("slurm")
    def test_a_job_whose_time_ends_is_requeued_and_continues(self, tmp_path: Path) -> None:
        engine, events = self.make_engine(tmp_path, workers=1), list[Event]()
        for event in engine.execute([Job("job", count_up, (tmp_path / "count", tmp_path / "go"))]):
            events.append(event)
            if isinstance(event, Message) and event.payload == 1:
                (tmp_path / "go").touch()
                psutil.Process(take_started(events, 1)[0].pid).parent().parent().send_signal(signal.SIGUSR2)
        assert (tmp_path / "checkpoint").exists()
        assert events[-1] == Returned("job", 2, "")
