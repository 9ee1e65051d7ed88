"""Times all cases in turn, round after round, by `torch.utils.benchmark`."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch
from torch.utils.benchmark import Timer

from benchmarks.case import Setting, Workload
from benchmarks.load import MAX_FOREIGN_CORES, MAX_WAITING, ReadMachine, foreign_cores
from benchmarks.probe import run_forward
from benchmarks.result import Lap, Result

MIN_RUN_SECONDS = 0.3
"""How long a quick case is repeated within a round: often enough that pages which the system gives anew in the first
calls, after another case, do not make the median."""

SLOW_SECONDS, SLOW_ROUNDS = 1.0, 3
"""A case that takes longer than this is timed in so many rounds only."""


class Clock:
    """What `Timer` reads: the CPU time of this process on all its threads, on CUDA the wall clock; notes both."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._readings: list[tuple[float, float]] = []

    def __call__(self) -> float:
        """Read the timer, in seconds."""
        if self._device == "cuda":
            torch.cuda.synchronize()
        cpu, wall = time.process_time(), time.perf_counter()
        self._readings.append((cpu, wall))
        return wall if self._device == "cuda" else cpu

    def take_medians(self, measurements: int) -> tuple[float, float]:
        """CPU and wall seconds of the last measurements; each has two readings."""
        pairs = list(zip(self._readings[::2], self._readings[1::2], strict=True))[-measurements:]
        return median(end[0] - start[0] for start, end in pairs), median(end[1] - start[1] for start, end in pairs)


def time_call(
    call: Callable[[], object], *, device: str = "cpu", threads: int = 1, seconds: float = MIN_RUN_SECONDS
) -> tuple[float, float]:
    """CPU and wall seconds of one call, the median over as many as fit, after one or more to warm up."""
    clock = Clock(device)
    timer = Timer("call()", globals={"call": call}, timer=clock, num_threads=threads)
    measured = timer.blocked_autorange(min_run_time=seconds)
    cpu, wall = clock.take_medians(len(measured.raw_times))
    return cpu / measured.number_per_run, wall / measured.number_per_run


@dataclass(frozen=True)
class Turn:
    """A case was timed once more; `done` of `total` is behind us, by what the first runs took."""

    case_id: str
    round: int
    done: float
    total: float
    seconds_left: float


@dataclass
class Rounds:
    """Which rounds others disturbed: repeated while there are spare ones, then kept and told."""

    repeats: int
    spare: int
    foreign: list[float] = field(default_factory=list)
    repeated: int = 0

    @property
    def was_loaded(self) -> bool:
        """Whether a round counts that should not."""
        return any(cores > MAX_FOREIGN_CORES for cores in self.foreign)


def time_rounds(
    results: Sequence[Result],
    workloads: Sequence[Workload],
    rounds: Rounds,
    *,
    setting: Setting,
    read: ReadMachine,
) -> Generator[Turn, None, None]:
    """Add laps to the results until every case has its rounds; a disturbed round is done again."""
    pairs = list(zip(results, workloads, strict=True))
    total = sum(_expect(result) * _count_rounds(result, rounds.repeats) for result in results)
    start, done, number = time.perf_counter(), 0.0, 0
    while number < rounds.repeats:
        before, laps = read(), []
        for result, workload in pairs:
            if number < _count_rounds(result, rounds.repeats):
                laps.append((result, *_time_workload(result, workload, number, setting)))
                done += _expect(result)
                left = (time.perf_counter() - start) * (total - done) / done
                yield Turn(result.case.id, number + 1, done, total, left)
        foreign = foreign_cores(before, read())
        if setting.device == "cpu":
            alone = [lap for result, *both in laps for lap in both if lap and result.case.threads == 1]
            foreign = max(foreign, _estimate_waiting(alone))
        if foreign > MAX_FOREIGN_CORES and rounds.repeated < rounds.spare:
            rounds.repeated += 1
            total += sum(_expect(result) for result, *_ in laps)
            continue
        rounds.foreign.append(foreign)
        for result, forward, train in laps:
            result.forward.append(forward)
            result.train += [train] if train else []
        number += 1


def _expect(result: Result) -> float:
    """Roughly the seconds of a turn: each pass once to warm up and once to count."""
    assert result.probe is not None
    return 2 * max(MIN_RUN_SECONDS, 1.3 * result.probe.seconds)


def _count_rounds(result: Result, repeats: int) -> int:
    assert result.probe is not None
    return min(SLOW_ROUNDS, repeats) if result.probe.seconds > SLOW_SECONDS else repeats


def _time_workload(result: Result, workload: Workload, number: int, setting: Setting) -> tuple[Lap, Lap | None]:
    threads = result.case.threads
    with workload.context():
        forward = time_call(lambda: run_forward(workload), device=setting.device, threads=threads)
        if workload.train is None:
            return Lap(number, *forward), None
        train = time_call(workload.train, device=setting.device, threads=threads)
    return Lap(number, *forward), Lap(number, *train)


def _estimate_waiting(laps: Sequence[Lap]) -> float:
    """What others took of a core that one thread was to have: where it waited longer than for its own pages."""
    cpu, wall = sum(lap.cpu for lap in laps), sum(lap.wall for lap in laps)
    return wall / cpu - 1 if wall > MAX_WAITING * cpu > 0 else 0.0
