"""Cores, GPUs and memory of one host, and which job has which part of them."""

import math
import socket
from collections.abc import Collection
from dataclasses import dataclass, field

from harness.engines.engine import Job, Place, Resources
from harness.errors import EngineError
from harness.text import count_noun

ONE_CORE = Resources(cpus=1)

TOLERANCE = 1e-9
"""Three thirds of a GPU are a whole one."""


@dataclass(frozen=True)
class Needs:
    """The resources of a job, complete: `cpus` and `memory_gb` of all its processes, `gpus` of each."""

    processes: int
    cpus: int
    gpus: float
    memory_gb: float

    @classmethod
    def of(cls, asked: Resources, share: Resources, *, num_gpus: int | None = None) -> "Needs":
        """What is asked, or else the share of a process that the engine's options state.

        `num_gpus` are those of a host, where that is known.
        """
        pairs = ((asked.cpus, share.cpus), (asked.gpus, share.gpus), (asked.memory_gb, share.memory_gb))
        cpus, gpus, memory = (default or 0 if chosen is None else chosen for chosen, default in pairs)
        processes = asked.processes
        if asked.takes_fewer:
            most = processes if num_gpus is None else num_gpus
            processes = max(1, min(processes, most if gpus else 1))
        return cls(processes, processes * int(cpus), gpus, processes * memory)

    @property
    def devices(self) -> int:
        """How many GPUs the job sees: its processes do not share one."""
        return self.processes * math.ceil(self.gpus - TOLERANCE)

    @property
    def share(self) -> float:
        """The part of each of these GPUs that it takes."""
        return min(self.gpus, 1.0)

    def describe(self) -> str:
        """In words."""
        parts = [count_noun(self.cpus, "core")]
        parts += [f"{self.share * self.devices:g} GPUs"] if self.gpus else []
        parts += [f"{self.memory_gb:g} GB of memory"] if self.memory_gb else []
        return ", ".join(parts)


@dataclass
class Capacity:
    """What jobs may use of this host at the same time.

    Attributes:
        cpus: cores.
        gpus: as `CUDA_VISIBLE_DEVICES` names them; empty: jobs see what this process sees.
        memory_gb: memory.
        share: what a process gets whose job states nothing.
    """

    cpus: int
    gpus: tuple[str, ...] = ()
    memory_gb: float = math.inf
    share: Resources = ONE_CORE
    _taken: dict[str, tuple[Needs, Place]] = field(default_factory=dict, init=False)

    def take(self, job: Job) -> Place | None:
        """The place of a job, which it keeps until `give_back`; None while others have too much.

        Raises:
            EngineError: it does not even fit alone.
        """
        needs = Needs.of(job.resources, self.share, num_gpus=len(self.gpus))
        if self._find_place(needs, ()) is None:
            memory = 0.0 if math.isinf(self.memory_gb) else self.memory_gb
            raise make_error(needs, Needs(len(self.gpus), self.cpus, float(bool(self.gpus)), memory).describe())
        place = self._find_place(needs, self._taken.values())
        if place is not None:
            self._taken[job.name] = needs, place
        return place

    def give_back(self, name: str) -> None:
        """Take back the place of a job that has ended."""
        del self._taken[name]

    def give_back_all(self) -> None:
        """Take back what jobs have that were ended together."""
        self._taken.clear()

    def _find_place(self, needs: Needs, taken: Collection[tuple[Needs, Place]]) -> Place | None:
        if needs.cpus > self.cpus - sum(each.cpus for each, _ in taken):
            return None
        if needs.memory_gb > self.memory_gb - sum(each.memory_gb for each, _ in taken) + TOLERANCE:
            return None
        free = dict.fromkeys(self.gpus, 1.0)
        for other, place in taken:
            for device in place.devices:
                free[device] -= other.share
        fitting = [device for device in self.gpus if free[device] >= needs.share - TOLERANCE]
        fitting.sort(key=lambda device: -free[device])  # stable: of equally free ones the first
        if len(fitting) < needs.devices:
            return None
        return Place(socket.gethostname(), needs.cpus, tuple(fitting[: needs.devices]))


def make_error(needs: Needs, available: str) -> EngineError:
    """The error for a job that can never fit."""
    return EngineError(
        f"a run needs {needs.describe()} on one host, but there are {available}: "
        "change --workers, or the options of the engine"
    )
