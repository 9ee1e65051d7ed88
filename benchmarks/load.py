"""Measures how many cores other processes use, to decide whether the machine is idle."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from harness.errors import LoadError

MAX_FOREIGN_CORES = 0.1
"""How much of a core others may use while something is timed."""

MAX_WAITING = 1.1
"""Wall clock over CPU time of one busy thread above which it was kept waiting."""

FIRST_LOOK_SECONDS = 2.0


@dataclass(frozen=True)
class Reading:
    """Seconds since some start: of the wall clock, of CPU that the whole machine has spent, of CPU that we have."""

    wall: float
    machine: float
    own: float


ReadMachine = Callable[[], Reading]


def read_machine() -> Reading:
    """As of now; what a hypervisor takes away counts as spent."""
    times = psutil.cpu_times()
    fields = ("user", "nice", "system", "irq", "softirq", "steal")
    machine = sum(getattr(times, field, 0.0) for field in fields)
    return Reading(time.perf_counter(), machine, time.process_time())


def foreign_cores(before: Reading, after: Reading) -> float:
    """Cores that others kept busy between two readings; ticks of 10 ms make it coarse below a second."""
    seconds = after.wall - before.wall
    return max(0.0, (after.machine - before.machine) - (after.own - before.own)) / seconds if seconds > 0 else 0.0


def measure_load(read: ReadMachine, *, seconds: float = FIRST_LOOK_SECONDS) -> float:
    """Cores that others use while we wait."""
    before = read()
    time.sleep(seconds)
    return foreign_cores(before, read())


def require_idle(read: ReadMachine, *, allow_load: bool, seconds: float = FIRST_LOOK_SECONDS) -> float:
    """Cores that others use now.

    Raises:
        LoadError: it is too much, and `allow_load` is not set.
    """
    foreign = measure_load(read, seconds=seconds)
    if foreign > MAX_FOREIGN_CORES and not allow_load:
        raise LoadError(f"the machine is busy, {describe_load(foreign)}; wait, or --allow-load for a mere look")
    return foreign


def describe_load(foreign: float) -> str:
    """`others use 0.35 of a core`."""
    return f"others use {foreign:.2f} of a core, at most {MAX_FOREIGN_CORES:g} is let pass"
