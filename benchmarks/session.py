"""One benchmark from the check of the machine to the judged results, as a stream of events."""

import platform
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch

from benchmarks.case import Case, Setting, Shape, Workload
from benchmarks.catalogue import SHAPES, choose_cases, list_cases
from benchmarks.ceiling import Ceiling, measure_ceiling
from benchmarks.goals import Judgement, judge_all
from benchmarks.load import (
    FIRST_LOOK_SECONDS,
    ReadMachine,
    read_machine,
    require_idle,
)
from benchmarks.probe import REFUSALS, probe_cases, run_forward, to_reason
from benchmarks.result import Probe, Result
from benchmarks.table1 import read_training_minutes
from benchmarks.timing import Rounds, Turn, time_rounds
from harness import provenance
from harness.errors import SpecError

REPEATS, QUICK_REPEATS = 7, 3


@dataclass(frozen=True)
class BenchOptions:
    """What a user asks for.

    Attributes:
        names: cases by any part of their names; empty: all.
        quick: leaves out what takes long.
        repeats: rounds; None: 7, and 3 of a quick look.
        device: None: an accelerator where there is one.
        allow_load: measures on a busy machine too; nothing of it is a result.
        results: where the results of trainings lie.
        shapes: other sizes, for trying out.
        look_seconds: how long the machine is watched before anything is timed.
    """

    names: tuple[str, ...] = ()
    quick: bool = False
    repeats: int | None = None
    device: str | None = None
    allow_load: bool = False
    results: Path = Path("results")
    shapes: tuple[Shape, ...] = SHAPES
    look_seconds: float = FIRST_LOOK_SECONDS

    @property
    def is_whole(self) -> bool:
        """Whether every case is measured."""
        return not self.names and not self.quick

    def make_setting(self) -> Setting:
        """The device, and the numbers that one computes with there.

        Raises:
            SpecError: CUDA is asked for and there is none.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise SpecError("--device cuda: torch sees no CUDA device")
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        return Setting(device, torch.float32 if device == "cpu" else torch.bfloat16)

    def count_rounds(self) -> int:
        """As asked for, or enough for quartiles."""
        return self.repeats or (QUICK_REPEATS if self.quick else REPEATS)

    def list_cases(self) -> tuple[Case, ...]:
        """Those that are asked for."""
        return choose_cases(list_cases(self.make_setting(), self.shapes), self.names, quick=self.quick)


@dataclass(frozen=True)
class Machine:
    """Where and with what figures were taken, and how busy it was: cores used by others, at most over the rounds."""

    name: str
    facts: dict[str, str]
    foreign: float
    repeated_rounds: int


@dataclass(frozen=True)
class Report:
    """Everything that one benchmark found."""

    setting: Setting
    results: tuple[Result, ...]
    judgements: tuple[Judgement, ...]
    ceiling: Ceiling
    machine: Machine
    repeats: int
    is_whole: bool
    loaded: bool

    @property
    def is_result(self) -> bool:
        """Whether it may stand in the results: everything measured, on an idle machine."""
        return self.is_whole and not self.loaded


@dataclass(frozen=True)
class Chosen:
    """The cases that will be measured."""

    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Probed:
    """A case was tried; `note` is what its row says, such as why it is left out."""

    case_id: str
    note: str


@dataclass(frozen=True)
class Finished:
    """The last event."""

    report: Report


Event = Chosen | Probed | Turn | Finished


def run_bench(options: BenchOptions, *, read: ReadMachine = read_machine) -> Generator[Event, None, None]:
    """Look at the machine, try every case in a process of its own, time those that run, judge.

    Raises:
        LoadError: others use the machine, and `allow_load` is not set.
        SpecError: an unknown case, or a device that is not there.
    """
    setting, cases = options.make_setting(), options.list_cases()
    foreign = require_idle(read, allow_load=options.allow_load, seconds=options.look_seconds)
    yield Chosen(cases)
    results = {case.id: Result(case) for case in cases}
    with closing(probe_cases(cases, setting)) as findings:
        for case_id, finding in findings:
            _keep(results[case_id], finding)
            yield Probed(case_id, results[case_id].note)
    ready, workloads = _build_all(results.values(), setting)
    rounds = Rounds(options.count_rounds(), spare=(options.count_rounds() + 1) // 2)
    yield from time_rounds(ready, workloads, rounds, setting=setting, read=read)
    rounds.foreign.append(foreign)
    yield Finished(_make_report(options, setting, tuple(results.values()), rounds))


def _make_report(options: BenchOptions, setting: Setting, results: tuple[Result, ...], rounds: Rounds) -> Report:
    table1 = read_training_minutes(options.results / "laptop" / "table1.csv")
    judged = judge_all(results, device=setting.device, loaded=rounds.was_loaded, reported=table1)
    return Report(
        setting=setting,
        results=results,
        judgements=tuple(judged),
        ceiling=measure_ceiling(setting),
        machine=describe_machine(setting, max(rounds.foreign), rounds.repeated),
        repeats=rounds.repeats,
        is_whole=options.is_whole,
        loaded=rounds.was_loaded,
    )


def _keep(result: Result, finding: Probe | str) -> None:
    if isinstance(finding, str):
        result.reason = finding
    else:
        result.probe = finding


def _build_all(results: Iterable[Result], setting: Setting) -> tuple[list[Result], list[Workload]]:
    """The cases that ran in their own process, ready in this one."""
    torch.set_num_threads(1)
    ready, workloads = [], []
    for result in results:
        if result.probe is not None:
            try:
                workload = result.case.build(result.case, setting)
                with workload.context():
                    run_forward(workload)  # what is compiled at the first call is compiled before the rounds
                workloads.append(workload)
                ready.append(result)
            except REFUSALS as error:
                result.reason = to_reason(error)
    return ready, workloads


def describe_machine(
    setting: Setting, foreign: float, repeated: int, *, folders: Sequence[str] = ("paradigms", "benchmarks")
) -> Machine:
    """This machine as it was while others used `foreign` cores, and the digest of the code in `folders`."""
    capability = torch.backends.cpu.get_cpu_capability()
    gpu = torch.cuda.get_device_name() if setting.device == "cuda" else None
    facts = provenance.collect(device=gpu, threads=1)
    cores = psutil.cpu_count() or 1
    name = facts["device"] if gpu else f"{facts['device']} {cores} cores {capability}"
    described = {
        **facts,
        "code_digest": provenance.tree_digest(*folders),
        "cores": str(cores),
        "isa": capability,
        "dtype": str(setting.dtype).removeprefix("torch."),
        "system": platform.platform(terse=True),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return Machine(name, described, foreign, repeated)
