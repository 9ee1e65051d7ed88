"""`harness repro`: replays a run that diverged or failed, and finds where its numbers stopped being finite."""

from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from harness.cell import Cell
from harness.checkpoint import locate_checkpoints
from harness.commands.show import find_run
from harness.data import load_data
from harness.environment import list_changes
from harness.errors import StoreError
from harness.execution.cell import attempt
from harness.execution.ledger import find_checkpoint
from harness.execution.prepared import choose_device, describe_process, make_model
from harness.execution.source import find_initial_weights
from harness.plan import PlannedRow, PlannedRun
from harness.provenance import code_digest, collect
from harness.ranks import Ranks
from harness.record import Record, RunStatus
from harness.spec import LimitsSpec
from harness.tasks import TASKS
from harness.trace import PLACE
from harness.tracking import Tracker
from harness.train import Training

REPLAYED = (RunStatus.DIVERGED, RunStatus.FAILED)


@dataclass(frozen=True)
class NotFinite:
    """The first tensor of a step that is not finite.

    Attributes:
        step: the optimizer step, from 0.
        module: path of its module; empty for the model itself.
        tensor: its role: an output, a gradient or a parameter of the module.
    """

    step: int
    module: str
    tensor: str

    def describe(self) -> str:
        """The tensor in words."""
        return f"step {self.step}: the {self.tensor} of {self.module or 'the model'} is not finite"


@dataclass(frozen=True)
class Replay:
    """The result of a replay.

    Attributes:
        record: the record of the replayed run.
        start: where the replay began, in words.
        ending: how it ended, in words.
        is_same: whether it ended like the run, at the same step.
        first: where the numbers stopped being finite; None if they were finite to the end.
        output: the traceback of a failure.
    """

    record: Record
    start: str
    ending: str
    is_same: bool
    first: NotFinite | None
    output: str = ""

    def describe(self) -> str:
        """The result as text for a terminal."""
        record = self.record
        stored = f"{record.row} seed {record.seed}: {record.status} {record.status_detail}".rstrip()
        lines = [stored, f"replayed from {self.start}: {self.ending}"]
        lines += [] if self.is_same else ["the replay did not end as the run did"]
        lines += [] if self.first is None else [f"first: {self.first.describe()}"]
        return "\n".join([*lines, self.output]).rstrip()


def replay_run(run_id: str, tracker: Tracker, *, data_dir: Path | None = None) -> Replay:
    """Train a run again from its last checkpoint, or from its beginning, until it fails; nothing is stored.

    All outputs of modules, their gradients and all parameters are checked, which changes no number. The replay has one
    process, and computes each step at once; a run that had several, or accumulated gradients, rounds otherwise.

    Args:
        run_id: the beginning of the id of a run that diverged or failed.
        tracker: the store of the run.
        data_dir: the folder of datasets that do not ship with the package.

    Raises:
        SpecError: there is no such run, or more than one.
        StoreError: the run had another outcome, or its config cannot be read.
        DataError: its images are missing or damaged.
    """
    record, cell = _read_run(run_id, tracker)
    run, device = PlannedRun(PlannedRow(record.row, cell), record.seed), choose_device(LimitsSpec())
    torch.set_num_threads(int(record.provenance.get("threads", torch.get_num_threads())))
    data = load_data(cell.data, cell.training, replicate=record.seed, data_dir=data_dir, device=device)
    model = make_model(run, find_initial_weights(run, tracker), tracker, device)
    task, ranks = TASKS[cell.data.task], Ranks(device)
    training = Training(model, data, cell.training, task=task, replicate=record.seed, ranks=ranks)
    here = {**collect(threads=torch.get_num_threads()), **describe_process(device), "code_digest": code_digest(cell)}
    today = here["code_digest"], data.digest
    checkpoint = find_checkpoint(tracker.checkpoints, cell.id, record.seed, today, is_verified=True)
    start = "its beginning"
    if (
        checkpoint is not None
        and checkpoint.run_id == record.run_id
        and not list_changes(checkpoint.origin, here, PLACE)
    ):
        folder = locate_checkpoints(tracker.checkpoints, cell.id, record.seed)
        training.load_state_dict(folder.read_state(checkpoint))
        start = f"its checkpoint {checkpoint.place}"
    changes = list_changes(record.provenance, here, ("code_digest", *PLACE))
    return _follow(training, record, f"{start}, with another {', '.join(changes)}" if changes else start)


def _read_run(prefix: str, tracker: Tracker) -> tuple[Record, Cell]:
    """The record and the cell of a run; for a light copy, those of the original run."""
    found = find_run(tracker, prefix)
    run_id, record = found.reused_from or found.run_id, found.record
    if record is None or record.status not in REPLAYED:
        ended = "has not ended" if record is None else f"ended as {record.status}"
        raise StoreError(f"run {prefix} {ended}: only runs that diverged or failed are replayed")
    try:
        return replace(record, run_id=run_id), Cell.from_dict(tracker.read_details(run_id).config)
    except ValueError as error:
        raise StoreError(f"the configuration of run {prefix} cannot be read here: {error}") from None


def _follow(training: Training, record: Record, start: str) -> Replay:
    watch = _Watch(training)

    def train() -> None:
        deque(training, maxlen=0)

    ended, failure = attempt(train)
    step = training.step if ended.step is None else ended.step
    place = "to its end" if ended.status == RunStatus.OK else f"to step {step}"
    ending = f"trained {place}, {ended.status}{f': {ended.detail}' if ended.detail else ''}"
    output = failure.output if failure is not None and ended.status == RunStatus.FAILED else ""
    is_same = (ended.status, ended.step) == (record.status, record.step)
    first = watch.find_first(step) if ended.status in REPLAYED else None
    return Replay(record, start, ending, is_same, first, output)


class _Watch:
    """Records the first tensor of each step that is not finite; changes no number."""

    def __init__(self, training: Training) -> None:
        self._training, self._found = training, dict[int, NotFinite]()
        self._parameters = dict(training.model.named_parameters())
        training.after_step = self._look_at_parameters
        for name, module in training.model.named_modules():
            module.register_forward_hook(partial(self._look_at_output, name))

    def find_first(self, step: int) -> NotFinite | None:
        """The first of the consecutive steps up to `step` that all have a tensor that is not finite."""
        first = None
        while step in self._found:
            first, step = self._found[step], step - 1
        return first

    def _look_at_output(self, name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self._note(self._training.step, name, "output", tensor)
                if tensor.requires_grad and not tensor.is_leaf:  # a parameter would keep its hook for all steps
                    tensor.register_hook(partial(self._note, self._training.step, name, "gradient at the output"))

    def _look_at_parameters(self) -> None:
        """Check the parameters after a step; its number has already been incremented."""
        for name, parameter in self._parameters.items():
            module, _, own = name.rpartition(".")
            self._note(self._training.step - 1, module, f"parameter {own}", parameter)

    def _note(self, step: int, module: str, what: str, tensor: Tensor) -> None:
        if step not in self._found and not bool(tensor.isfinite().all()):
            self._found[step] = NotFinite(step, module, what)
