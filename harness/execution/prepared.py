"""What a run or a rehearsal has in its process: ranks, data, model, provenance."""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from harness.build import build_model, describe_kernels, synchronize_batch_norm
from harness.cell import Cell
from harness.data import Data, load_data
from harness.data.part import take_part
from harness.division import Division, divide_batch
from harness.environment import describe_step
from harness.errors import DataError
from harness.execution.context import RunContext
from harness.execution.source import InitialWeights, find_initial_weights
from harness.files import temporary_folder
from harness.plan import PlannedRun
from harness.provenance import name_cpu
from harness.ranks import Ranks
from harness.record import RunStatus
from harness.spec import LimitsSpec, RecipeSpec
from harness.tasks import TASKS, Task
from harness.trace import Rehearsal, digest_trace, find_place
from harness.tracking import Tracker
from harness.train import Training
from harness.weights import start_from

INSTRUCTION_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")


@dataclass(frozen=True)
class Prepared:
    """A run in its process, before anything is trained.

    Attributes:
        ranks: of a run of several processes, the rank that this process is; the leader is none, and connects to none.
        initial_weights: where its weights come from; None: trained from scratch.
        provenance: the context's, with what this process alone knows.
    """

    run: PlannedRun
    context: RunContext
    ranks: Ranks
    initial_weights: InitialWeights | None
    provenance: Mapping[str, str]

    @property
    def cell(self) -> Cell:
        """The cell of the run."""
        return self.run.row.cell

    @property
    def task(self) -> Task:
        """The task of the cell."""
        return TASKS[self.cell.data.task]

    def load_data(self) -> Data:
        """The images that this rank reads.

        Raises:
            DataError: files are missing, damaged, or have changed since the plan was made.
        """
        cell, context = self.cell, self.context
        data = load_data(
            cell.data, cell.training, replicate=self.run.seed, data_dir=context.data_dir, device=self.ranks.device
        )
        if data.digest != context.provenance["data_digest"]:
            raise DataError(f"the files of {cell.data.name} have changed since the plan was made")
        return take_part(data, self.ranks)

    def make_training(self, data: Data, epochs: Sequence[int] | None = None) -> Training:
        """The model with its initial weights, ready to train; see `Training` for `epochs`."""
        recipe, ranks = self.context.spec.recipe, self.ranks
        model = make_model(self.run, self.initial_weights, self.context.tracker, ranks.device)
        if ranks.world_size > 1 and ranks.device.type == "cuda":  # torch has no such batch norm for the CPU
            model = synchronize_batch_norm(model)
        if recipe.channels_last:
            model.to(memory_format=torch.channels_last)
        if recipe.compile:
            model.compile()
        return Training(
            model, data, self.cell.training, task=self.task, replicate=self.run.seed, ranks=ranks, epochs=epochs
        )

    def to_rehearsal(self, status: RunStatus, trace: Mapping[str, Any], **known: Any) -> Rehearsal:
        """The rehearsal of this replicate in this process; `known` are its further fields."""
        return Rehearsal(
            cell_id=self.cell.id,
            seed=self.run.seed,
            code_digest=self.provenance["code_digest"],
            data_digest=self.provenance["data_digest"],
            environment=find_place(self.provenance),
            status=status,
            digest=digest_trace(trace) if trace else "",
            trace=trace,
            **known,
        )


def make_model(run: PlannedRun, weights: InitialWeights | None, tracker: Tracker, device: torch.device) -> nn.Module:
    """The model of a run with its initial weights."""
    model = build_model(run.row.cell, replicate=run.seed, device=device)
    if weights is not None:
        with temporary_folder() as folder:
            start_from(model, weights.fetch(tracker, folder))
    return model


def prepare(run: PlannedRun, context: RunContext, rank: int = 0) -> Prepared:
    """Set this process up for a run, or for one of its ranks.

    Raises:
        StoreError: the run starts from one that the store does not have.
    """
    torch.set_num_threads(context.threads)
    recipe, weights = context.spec.recipe, find_initial_weights(run, context.tracker)
    division = _divide(run, recipe)
    ranks = Ranks(choose_device(recipe.limits, rank), rank, division.processes, division.accumulation)
    process = describe_process(ranks.device, context.host)
    provenance = {**context.provenance, **process, **describe_step(division, recipe)}
    provenance |= {} if weights is None else {"init_from": weights.description}
    rehearsal = context.rehearsal
    if rehearsal is not None and rehearsal.environment == find_place(provenance):
        provenance |= rehearsal.to_provenance()
    return Prepared(run, context, ranks, weights, provenance)


def _divide(run: PlannedRun, recipe: RecipeSpec) -> Division:
    return divide_batch(
        run.row.cell.training.batch_size,
        device_batch_size=recipe.device_batch_size,
        processes=recipe.processes,
        num_gpus=torch.cuda.device_count(),
    )


def choose_device(limits: LimitsSpec, rank: int = 0) -> torch.device:
    """The rank's own GPU where there are GPUs, kept to the memory limit; the engine keeps the CPU's."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device, limit = torch.device("cuda", rank), limits.memory_limit_gb
    if limit is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit * 1e9 / total), device)
    return device


def describe_process(device: torch.device, host: str | None = None) -> dict[str, str]:
    """What the process of a run alone knows of its environment; the rest is known on `host`, by default this one."""
    return {**_name_device(device, host), **_describe_instructions(), "kernels": describe_kernels(device)}


def _describe_instructions() -> dict[str, str]:
    """Instruction sets decide rounding: that of torch's own kernels, and what the environment asks of its libraries."""
    asked = [f"{name}={os.environ[name]}" for name in INSTRUCTION_VARIABLES if name in os.environ]
    return {"instructions": ", ".join([torch.backends.cpu.get_cpu_capability(), *asked])}


def _name_device(device: torch.device, host: str | None) -> dict[str, str]:
    """The GPU, or the processor where it is not that of `host`."""
    if device.type == "cpu":
        return {} if host in (None, socket.gethostname()) else {"device": name_cpu()}
    return {"device": torch.cuda.get_device_name(device)}
