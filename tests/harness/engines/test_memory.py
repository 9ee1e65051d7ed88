from pathlib import Path

import pytest

from harness.engines import memory
from harness.engines.memory import OutOfMemoryKills, count_kills


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kernel would show in /proc and /sys."""
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "MACHINE", tmp_path / "vmstat")
    monkeypatch.setattr(memory, "CONTROLLERS", tmp_path / "sys")
    (tmp_path / "vmstat").write_text("nr_free_pages 5\noom_kill 100\n")
    return tmp_path


@pytest.mark.parametrize(
    ("groups", "counter"),
    [
        ("0::/user/one\n", "sys/user/one/memory.events"),
        ("0::/\n", "sys/memory.events"),
        ("5:cpu:/\n4:memory:/docker/1\n", "sys/memory/docker/1/memory.oom_control"),
        ("4:memory:/docker/1\n", "sys/memory/memory.oom_control"),
    ],
    ids=["version 2", "root of a container", "version 1", "version 1 in a container"],
)
def test_the_kills_of_the_own_control_group_are_counted(system: Path, groups: str, counter: str) -> None:
    (system / "cgroup").write_text(groups)
    (system / counter).parent.mkdir(parents=True)
    (system / counter).write_text("oom 9\noom_kill 3\noom_group_kill 7\n")
    assert count_kills() == 3


def test_without_a_control_group_the_machines_kills_are_counted(system: Path) -> None:
    assert count_kills() == 100
    (system / "vmstat").unlink()
    assert count_kills() == 0


def test_each_kill_explains_one_death(system: Path) -> None:
    kills = OutOfMemoryKills()
    assert not kills.claim()
    (system / "vmstat").write_text("oom_kill 102\n")
    assert [kills.claim() for _ in range(3)] == [True, True, False]
