"""A small table is made through random faults: two commands share its store, and each is killed again and again.

`FAULTS` of them are injected. What is left in the end must be the table of a command that nothing has disturbed.
"""

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest

from tests.test_end_to_end import MEASURED, Desk, assert_each_run_once, make_desk, require_same_weights, to_options

pytestmark = pytest.mark.slow

FAULTS = 60
OVERRIDES = (
    *("floor_width=null", "data.train_images=480", "training.epochs=12", "training.ema_decay=0.9"),
    *("training.augmentation={hflip: 0.5, mixup: 0.8}", "backbones.swin.drop_path_rate=0.2"),
    "checkpoint_minutes=0.001",
)
COMMAND = ("run", "two.yaml", "--seeds", "2", *to_options(OVERRIDES))

Call = subprocess.Popen[str]


def find_members(call: Call) -> list[psutil.Process]:
    """The server of the runs' processes, then these and what they have started."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(call.pid).children(recursive=True)
    return []


def signal_all(members: list[psutil.Process], number: signal.Signals) -> None:
    for member in members:
        with suppress(psutil.NoSuchProcess):
            member.send_signal(number)


def kill_a_run(_folder: Path, call: Call, draw: random.Random) -> None:
    members = find_members(call)
    signal_all(draw.sample(members, min(1, len(members))), signal.SIGKILL)


def kill_all_runs(_folder: Path, call: Call, _draw: random.Random) -> None:
    signal_all(find_members(call), signal.SIGKILL)


def kill_the_command(_folder: Path, call: Call, _draw: random.Random) -> None:
    call.kill()


def terminate_the_command(_folder: Path, call: Call, _draw: random.Random) -> None:
    call.terminate()


def terminate_everything(_folder: Path, call: Call, _draw: random.Random) -> None:
    signal_all(find_members(call), signal.SIGTERM)
    call.terminate()


def stop_for_a_while(_folder: Path, call: Call, _draw: random.Random) -> None:
    """A laptop that sleeps: all processes stand still, then go on."""
    everything = [*find_members(call), psutil.Process(call.pid)]
    signal_all(everything, signal.SIGSTOP)
    time.sleep(1)
    signal_all(everything, signal.SIGCONT)


def damage_a_checkpoint(folder: Path, call: Call, draw: random.Random) -> None:
    """The newest of a run loses its last byte, or both are emptied; then the command is killed."""
    call.kill()
    states = sorted(folder.glob("checkpoints/*/*.pt"), key=lambda path: path.stat().st_mtime)
    if draw.random() < 0.5:
        for path in states:
            path.write_bytes(b"")
    elif states:
        states[-1].write_bytes(states[-1].read_bytes()[:-1])


KINDS: tuple[Callable[[Path, Call, random.Random], None], ...] = (
    kill_a_run,
    kill_all_runs,
    kill_the_command,
    terminate_the_command,
    terminate_everything,
    stop_for_a_while,
    damage_a_checkpoint,
)


def end(call: Call, injected: Counter[str]) -> None:
    output, errors = call.communicate(timeout=240)
    expected = (0, 130, -signal.SIGKILL, -signal.SIGTERM)
    assert call.returncode in expected, f"{dict(injected)}\n{output}\n{errors}"


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Desk]:
    def make(name: str) -> Desk:
        (tmp_path / name).mkdir()
        return make_desk(tmp_path / name)

    return make


def require_equal(found: Desk, expected: Desk) -> None:
    """The table, and the weights of each run, bit for bit; each run is there once."""
    assert_each_run_once(found, 4)
    tables = [pd.read_csv(next(each.folder.glob("results/smoke+*/two.csv")))[MEASURED] for each in (found, expected)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    require_same_weights(found, expected, OVERRIDES)
    assert not list(found.folder.glob("checkpoints/*/*.pt"))


def test_a_table_is_the_same_through_many_faults(
    folder: Callable[[str], Desk], capsys: pytest.CaptureFixture[str]
) -> None:
    undisturbed = folder("undisturbed")
    undisturbed.harness(*COMMAND)
    draw, injected, stores = random.Random(0), Counter[str](), 0
    while injected.total() < FAULTS:
        stores += 1
        disturbed = folder(f"disturbed {stores}")
        calls = [disturbed.start(*COMMAND, "--workers", "1") for _ in range(2)]
        while injected.total() < FAULTS and any(call.poll() is None for call in calls):
            time.sleep(draw.uniform(0.5, 4))
            call = draw.choice(calls)
            if call.poll() is None:
                kind = draw.choice(KINDS)
                kind(disturbed.folder, call, draw)
                injected[kind.__name__] += 1
            for number, ended in enumerate(calls):
                if ended.poll() not in (None, 0):
                    end(ended, injected)
                    calls[number] = disturbed.start(*COMMAND, "--workers", "1")
        for call in calls:
            end(call, injected)
        disturbed.harness(*COMMAND)
        require_equal(disturbed, undisturbed)
    with capsys.disabled():
        print(f"\n{injected.total()} faults, {stores} tables equal to the undisturbed one: {dict(injected)}")  # noqa: T201
