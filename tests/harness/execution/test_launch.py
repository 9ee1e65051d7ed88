"""Runs of several processes that are killed, interrupted or broken: they end as a whole and go on bit for bit."""

import io
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from harness.execution.context import execute_cell
from harness.execution.open_run import Kept, Opened, Raised, Resumed, RunMessage
from harness.record import Record, RunStatus
from harness.tracking import MlflowTracker
from tests.harness.execution.test_checkpoints import (
    AUGMENTATION,
    CROPS,
    FORK,
    MEMORY,
    STREAM,
    Desk,
    ForkEngine,
    computed,
    make_desk,
    make_spec,
)
from tests.pictures import write_pictures

pytestmark = [pytest.mark.slow, pytest.mark.forks]

Interrupt = Callable[[psutil.Process, list[psutil.Process]], None]


@dataclass(frozen=True)
class Finished:
    """A run, its messages and what it has kept."""

    record: Record
    messages: list[RunMessage]
    kept: dict[str, Any]


def start_desk(tracker: MlflowTracker, data_dir: Path | None = None, **recipe: Any) -> Desk:
    """A run of two processes and some seconds."""
    spec = make_spec(MEMORY, AUGMENTATION)
    training = spec.recipe.training.model_copy(update={"epochs": 4, **recipe.pop("training", {})})
    changed = spec.recipe.model_copy(update={"training": training, "processes": 2, **recipe})
    return make_desk(spec.model_copy(update={"recipe": changed}), tracker, data_dir)


def work(sender: Any, desk: Desk) -> None:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as in `harness.engines.worker`: Ray leaves a handler behind
    torch.set_num_threads(1)
    context = desk.make_setup(ForkEngine(lambda: None)).make_context(desk.run, run_id="mine")
    sender.send(execute_cell(sender.send, desk.run, context))


def list_ranks(leader: psutil.Process) -> list[psutil.Process]:
    """In their order."""
    children = sorted(leader.children(), key=lambda child: child.create_time())
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def interrupt_after_checkpoint(desk: Desk, leader: psutil.Process, interrupt: Interrupt) -> None:
    while not list(desk.folder.glob("*-*.json")) and leader.is_running():
        time.sleep(0.02)
    interrupt(leader, list_ranks(leader))


def execute(desk: Desk, interrupt: Interrupt | None = None) -> tuple[int, list[Any]]:
    """The exit code and the messages of the leader, the last of which is its record if it had one."""
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=work, args=(sender, desk))
    process.start()
    sender.close()
    family = list[psutil.Process]()
    if interrupt is not None:

        def watched(leader: psutil.Process, ranks: list[psutil.Process]) -> None:
            family.extend(ranks)
            interrupt(leader, ranks)

        args = (desk, psutil.Process(process.pid), watched)
        Thread(target=interrupt_after_checkpoint, args=args, daemon=True).start()
    messages = list[Any]()
    with suppress(EOFError):
        while True:
            messages.append(receiver.recv())
    process.join()
    assert interrupt is None or len(family) == 2
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert process.exitcode is not None
    return process.exitcode, messages


def finish(desk: Desk) -> Finished:
    code, messages = execute(desk)
    assert code == 0
    record = messages.pop()
    assert record.status == RunStatus.OK, record.status_detail
    return Finished(record, messages, read_kept(messages))


def read_kept(messages: list[Any]) -> dict[str, Any]:
    """The tensors and arrays that a run has left behind."""
    files = {message.name: io.BytesIO(message.content) for message in messages if isinstance(message, Kept)}
    weights = torch.load(files["weights.pt"], weights_only=True)
    with np.load(files["predictions.npz"]) as arrays:
        return {**{name: tensor.numpy() for name, tensor in weights.items()}, **dict(arrays)}


@pytest.fixture(scope="module")
def undisturbed(ready_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    path = tmp_path_factory.mktemp("undisturbed") / "mlflow.db"
    path.write_bytes(ready_database.read_bytes())
    return finish(start_desk(MlflowTracker(f"sqlite:///{path}")))


def kill_rank(number: int) -> Interrupt:
    return lambda _leader, ranks: ranks[number].kill()


def terminate_leader(leader: psutil.Process, _ranks: list[psutil.Process]) -> None:
    leader.terminate()


def terminate_rank(_leader: psutil.Process, ranks: list[psutil.Process]) -> None:
    ranks[1].terminate()


def terminate_all(leader: psutil.Process, _ranks: list[psutil.Process]) -> None:
    os.killpg(leader.pid, signal.SIGTERM)


@pytest.mark.parametrize(
    ("interrupt", "ending"),
    [
        pytest.param(kill_rank(1), "rank 1 was killed by signal 9 (SIGKILL)", id="rank 1 killed"),
        pytest.param(terminate_rank, "was killed by signal 15 (SIGTERM)", id="rank terminated"),
        pytest.param(terminate_leader, -signal.SIGTERM, id="leader terminated"),
        pytest.param(terminate_all, -signal.SIGTERM, id="all terminated"),
    ],
)
def test_a_run_that_is_cut_short_ends_as_a_whole_and_goes_on_bit_for_bit(
    interrupt: Interrupt, ending: str | int, tracker: MlflowTracker, undisturbed: Finished
) -> None:
    desk = start_desk(tracker)
    code, messages = execute(desk, interrupt)
    if isinstance(ending, int):
        assert code == ending
    else:
        assert messages[-1].status == RunStatus.INTERRUPTED
        assert ending in messages[-1].status_detail
    assert list(desk.folder.glob("*-*.pt"))
    found = finish(desk)
    (resumed,) = [message for message in found.messages if isinstance(message, Resumed)]
    assert resumed.checkpoint.step > 0
    assert computed(found.record.metrics) == computed(undisturbed.record.metrics)
    assert [computed(epoch.metrics) for epoch in found.record.curve] == [
        computed(epoch.metrics) for epoch in undisturbed.record.curve
    ]
    assert found.kept.keys() == undisturbed.kept.keys()
    assert all(np.array_equal(found.kept[name], undisturbed.kept[name]) for name in found.kept)


def test_the_environment_states_the_number_of_processes(undisturbed: Finished) -> None:
    (opened,) = [message for message in undisturbed.messages if isinstance(message, Opened)]
    assert opened.provenance["processes"] == undisturbed.record.provenance["processes"] == "2"
    assert "accumulation" not in opened.provenance


@pytest.fixture
def damaged_images(tmp_path: Path) -> Path:
    """Two classes of 40 images; one file is none."""
    folder = write_pictures(tmp_path / "images", train=40, val=10)
    (folder / "train" / "ant" / "7.png").write_bytes(b"no image")
    return folder


def test_an_exception_on_one_rank_ends_the_run_as_failed_with_its_traceback(
    tracker: MlflowTracker, damaged_images: Path
) -> None:
    """Only the rank whose part has the damaged file knows of it; the other waits for its gradients."""
    data = STREAM.model_copy(update={"val_images": 0})
    desk = start_desk(tracker, data_dir=damaged_images, data=data, training={"augmentation": CROPS})
    code, (*messages, record) = execute(desk)
    assert (code, record.status) == (0, RunStatus.FAILED)
    assert "7.png" in record.status_detail
    (raised,) = [message for message in messages if isinstance(message, Raised)]
    assert raised.origin.startswith("ImageError in ")
    assert "Traceback" in raised.output
    assert "7.png" in raised.output


def test_a_run_that_diverges_does_so_at_one_step_on_all_ranks(tracker: MlflowTracker) -> None:
    code, messages = execute(start_desk(tracker, training={"lr": 1e30, "clip_grad": None, "warmup_epochs": 0}))
    record = messages[-1]
    assert code == 0
    assert (record.status, record.step) == (RunStatus.DIVERGED, 1), record.status_detail
