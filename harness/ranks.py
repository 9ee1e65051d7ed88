"""The processes that train one model together, seen from one of them, with their collective operations."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import zip_longest
from typing import TypeVar

import torch
from torch import Tensor, distributed

from harness.errors import RunError

Value = TypeVar("Value")

TIMEOUT = timedelta(hours=2)
"""Of a collective operation. A rank that dies is noticed at once; one that is slow to read images is not an error."""


@dataclass(frozen=True)
class Ranks:
    """One rank of a run. A run of one process has no group: every operation then returns what it was given.

    Every rank must call a collective operation, in the same order. Numbers and flags are exchanged by gloo, gradients
    by NCCL on GPUs and by gloo on the CPU.

    Attributes:
        device: of this rank.
        rank: its number; rank 0 writes the checkpoints and reports.
        world_size: how many there are.
        accumulation: in how many micro-batches each rank computes its part of a step.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    accumulation: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @property
    def identity(self) -> tuple[str | int, ...]:
        """What names the random streams of this rank besides the replicate; those of rank 0 are of a single process."""
        return () if self.is_first else ("rank", self.rank)

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Inside, the ranks are connected; the launcher has set the address in the environment.

        Raises:
            RunError: there are fewer GPUs than ranks.
        """
        if self.world_size == 1:
            yield
            return
        if self.device.type == "cuda":
            if self.world_size > torch.cuda.device_count():
                raise RunError(f"{self.world_size} processes need as many GPUs, got {torch.cuda.device_count()}")
            torch.cuda.set_device(self.device)
        backend = "gloo" if self.device.type == "cpu" else "cpu:gloo,cuda:nccl"
        distributed.init_process_group(backend, timeout=TIMEOUT)
        yield
        distributed.destroy_process_group()  # not after an exception: the others may be gone

    def sum(self, value: float) -> float:
        """The sum of a number of each rank, the same bits on all of them."""
        if self.world_size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(total)
        return total.item()

    def any(self, flag: bool) -> bool:
        """Whether a flag is set on any rank."""
        return self.sum(float(flag)) > 0

    def gather(self, value: Value) -> list[Value]:
        """The values of all ranks, in their order; tensors must be on the CPU."""
        if self.world_size == 1:
            return [value]
        found: list[Value] = [value] * self.world_size
        distributed.all_gather_object(found, value)
        return found

    def gather_batches(self, own: Sequence[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        """The tensors of all batches in their order, of batches that were dealt to the ranks in turn."""
        if self.world_size == 1:
            return list(own)
        dealt = self.gather([tuple(tensor.cpu() for tensor in batch) for batch in own])
        in_order = [batch for turn in zip_longest(*dealt) for batch in turn if batch is not None]
        return [tuple(tensor.to(self.device) for tensor in batch) for batch in in_order]

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of rank 0."""
        if self.world_size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Go on when all ranks have come here."""
        self.any(False)
