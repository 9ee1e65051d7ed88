"""What a run or a rehearsal has in its process: device, data, model, provenance."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.build import build_model, describe_kernels
from harness.cell import Cell
from harness.data import Data, load_data
from harness.errors import DataError
from harness.execution.context import RunContext
from harness.execution.source import InitialWeights, find_initial_weights
from harness.files import temporary_folder
from harness.plan import PlannedRun
from harness.record import RunStatus
from harness.spec import LimitsSpec
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
        initial_weights: where its weights come from; None: trained from scratch.
        provenance: the context's, with what this process alone knows.
    """

    run: PlannedRun
    context: RunContext
    device: torch.device
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
        """The images.

        Raises:
            DataError: files are missing, damaged, or have changed since the plan was made.
        """
        cell, context = self.cell, self.context
        data = load_data(
            cell.data, cell.training, replicate=self.run.seed, data_dir=context.data_dir, device=self.device
        )
        if data.digest != context.provenance["data_digest"]:
            raise DataError(f"the files of {cell.data.name} have changed since the plan was made")
        return data

    def make_training(self, data: Data, epochs: Sequence[int] | None = None) -> Training:
        """The model with its initial weights, ready to train; see `Training` for `epochs`."""
        return make_training(self.run, data, self.initial_weights, self.context.tracker, self.device, epochs)

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


def make_training(
    run: PlannedRun,
    data: Data,
    weights: InitialWeights | None,
    tracker: Tracker,
    device: torch.device,
    epochs: Sequence[int] | None = None,
) -> Training:
    """The model of a run with its initial weights, ready to train; see `Training` for `epochs`."""
    cell = run.row.cell
    model = build_model(cell, replicate=run.seed, device=device)
    if weights is not None:
        with temporary_folder() as folder:
            start_from(model, weights.fetch(tracker, folder))
    return Training(
        model, data, cell.training, task=TASKS[cell.data.task], replicate=run.seed, device=device, epochs=epochs
    )


def prepare(run: PlannedRun, context: RunContext) -> Prepared:
    """Set this process up for a run.

    Raises:
        StoreError: the run starts from one that the store does not have.
    """
    torch.set_num_threads(context.threads)
    device, weights = choose_device(context.spec.recipe.limits), find_initial_weights(run, context.tracker)
    provenance = {**context.provenance, **describe_process(device)}
    provenance |= {} if weights is None else {"init_from": weights.description}
    rehearsal = context.rehearsal
    if rehearsal is not None and rehearsal.environment == find_place(provenance):
        provenance |= rehearsal.to_provenance()
    return Prepared(run, context, device, weights, provenance)


def choose_device(limits: LimitsSpec) -> torch.device:
    """The GPU where there is one, kept to the memory limit; the engine keeps the CPU's."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device, limit = torch.device("cuda", 0), limits.memory_limit_gb
    if limit is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit * 1e9 / total), device)
    return device


def describe_process(device: torch.device) -> dict[str, str]:
    """What the process of a run alone knows of its environment."""
    return {**_name_accelerator(device), **_describe_instructions(), "kernels": describe_kernels(device)}


def _describe_instructions() -> dict[str, str]:
    """Instruction sets decide rounding: that of torch's own kernels, and what the environment asks of its libraries."""
    asked = [f"{name}={os.environ[name]}" for name in INSTRUCTION_VARIABLES if name in os.environ]
    return {"instructions": ", ".join([torch.backends.cpu.get_cpu_capability(), *asked])}


def _name_accelerator(device: torch.device) -> dict[str, str]:
    return {} if device.type == "cpu" else {"device": torch.cuda.get_device_name(device)}
