"""Runs of several processes through the real command, killed and continued."""

import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import psutil
import pytest
from mlflow.entities import Run

from harness.processes import list_descendants
from harness.tracking.translation import to_worker
from tests.harness.execution.test_launch import list_ranks
from tests.pictures import write_pictures
from tests.test_end_to_end import MEASURED, Desk, assert_gone, require_same_weights, to_options, wait_for_checkpoint

pytestmark = pytest.mark.slow

EXPERIMENT = """\
title: One row of Table 1
recipe: smoke
baseline: Net7
rows:
  Net7: {preset: net7}
seeds: 1
"""

LONGEST = 500.0
"""Seconds of a command, on a machine that is busy: each of its processes imports torch."""

SMOKE = ("floor_width=null",)
LONG = (*SMOKE, "training.epochs=6", "training.ema_decay=0.9", "training.augmentation={hflip: 0.5, mixup: 0.8}")

IMAGENET = (
    *("data.num_classes=2", "data.image_size=32", "data.loading_workers=1"),
    "backbones.swin={patch_size: 2, embed_dim: 8, depths: [1, 1], num_heads: [1, 2], window_size: 7}",
    *("training.batch_size=12", "training.epochs=2", "training.warmup_epochs=1", "training.cooldown_epochs=0"),
    *("training.precision=bfloat16", "processes=2", "device_batch_size=3", "checkpoint_minutes=0.0001"),
)


def make_desk(folder: Path) -> Desk:
    folder.mkdir()
    (folder / "one.yaml").write_text(EXPERIMENT)
    return Desk(folder)


def get_run(desk: Desk, overrides: Sequence[str]) -> Run:
    (run,) = desk.runs(*overrides).values()
    return run


def require_equal(found: Desk, expected: Desk, overrides: Sequence[str]) -> None:
    """The same scores and weights, bit for bit."""
    runs = [get_run(desk, overrides) for desk in (found, expected)]
    assert [run.data.tags["status"] for run in runs] == ["ok", "ok"]
    assert runs[0].data.metrics["attempts"] >= 2
    for name in ("test/top1", "test/loss", "val/loss", "train/loss"):
        assert runs[0].data.metrics[name] == runs[1].data.metrics[name], name
    require_same_weights(found, expected, overrides)


def kill_after_checkpoint(desk: Desk, command: Sequence[str], overrides: Sequence[str], *, rank: int | None) -> None:
    """Kill a rank, or the leader, of a run that has a checkpoint; all processes of the command end."""
    process = desk.start(*command)
    wait_for_checkpoint(desk, process)
    family = psutil.Process(process.pid).children(recursive=True)
    leader = psutil.Process(to_worker(get_run(desk, overrides)).pid)
    os.kill(leader.pid if rank is None else list_ranks(leader)[rank].pid, signal.SIGKILL)
    output, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 130, f"{output}\n{errors}"
    assert "killed by signal 9 (SIGKILL)" in output
    assert_gone(family)


def test_one_and_two_processes_give_one_table_within_rounding(tmp_path: Path) -> None:
    desk = make_desk(tmp_path / "desk")
    overrides = [SMOKE, (*SMOKE, "processes=2")]
    for number, stated in enumerate(overrides):
        (desk.folder / "one.yaml").write_text(EXPERIMENT.replace("title: One", f"title: {number}. One"))
        desk.harness("run", "one.yaml", "--tracking-uri", f"sqlite:///{number}.db", *to_options(stated))
    folders = ["+".join(["smoke", *stated]) for stated in overrides]
    alone, several = (pd.read_csv(desk.folder / "results" / folder / "one.csv") for folder in folders)
    assert several["cell_id"].tolist() == alone["cell_id"].tolist()
    for name in ("top1_mean", "val_top1_mean"):
        assert several[name][0] == pytest.approx(alone[name][0], abs=1.0)


def test_a_run_whose_leader_is_killed_goes_on_bit_for_bit(tmp_path: Path) -> None:
    overrides = (*LONG, "processes=2", "checkpoint_minutes=0.0001")
    command = ("run", "one.yaml", *to_options(overrides))
    undisturbed, killed = make_desk(tmp_path / "undisturbed"), make_desk(tmp_path / "killed")
    undisturbed.harness(*command)
    kill_after_checkpoint(killed, command, overrides, rank=None)
    killed.harness(*command)
    require_equal(killed, undisturbed, overrides)


def test_image_files_on_two_processes_go_on_within_an_epoch_bit_for_bit(tmp_path: Path) -> None:
    """The recipe `imagenet`, with two micro-batches on each of two processes."""
    write_pictures(tmp_path / "images", train=60, val=9, size=(40, 44), suffix="jpg")
    command = ("run", "one.yaml", "--recipe", "imagenet", "--data", str(tmp_path / "images"), *to_options(IMAGENET))
    undisturbed, killed = make_desk(tmp_path / "undisturbed"), make_desk(tmp_path / "killed")
    undisturbed.harness(*command)
    assert get_run(undisturbed, IMAGENET).data.metrics["test/images"] == 18
    kill_after_checkpoint(killed, command, IMAGENET, rank=0)
    planned = killed.harness("plan", *command[1:])
    assert "2 micro-batches in each of 2 processes" in planned
    killed.harness(*command)
    require_equal(killed, undisturbed, IMAGENET)


def test_table_1_that_is_killed_five_times_ends_as_the_undisturbed_one(tmp_path: Path) -> None:
    """Six of its rows, two processes a run; one process of the command or of a run is killed, then the command."""
    overrides = ("seeds=1", "processes=2", "checkpoint_minutes=0.0001", "floor_width=null")
    rows = ("Swin-T", "Net1", "Net2", "Net4", "Net6", "Net7")
    command = ("run", "table1", "--recipe", "smoke", "--rows", ",".join(rows), *to_options(overrides))
    undisturbed, killed = make_desk(tmp_path / "undisturbed"), make_desk(tmp_path / "killed")
    undisturbed.harness(*command)
    draw = random.Random(0)
    for _ in range(5):
        process = killed.start(*command)
        time.sleep(draw.uniform(5, 10))
        family = [psutil.Process(process.pid), *list_descendants(process.pid)]
        assert process.poll() is None, "the table was complete before it was killed five times"
        draw.choice(family).kill()
        time.sleep(draw.uniform(0, 1))
        process.kill()
        process.communicate(timeout=LONGEST)
        assert_gone(family)
    killed.harness(*command)
    tables = [pd.read_csv(next(desk.folder.glob("results/*/table1.csv"))) for desk in (killed, undisturbed)]
    pd.testing.assert_frame_equal(*(table[["row", *MEASURED]] for table in tables), check_exact=True)
    found = killed.runs(*overrides)
    assert {run.data.params["row"] for run in found.values()} == set(rows)
    assert len(found) == len(rows)
    assert {run.data.tags["status"] for run in found.values()} == {"ok"}
    require_same_weights(killed, undisturbed, overrides)
