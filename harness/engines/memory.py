"""Decides whether the kernel killed a process because memory ran out."""

from collections.abc import Iterator
from pathlib import Path

GROUPS, MACHINE = Path("/proc/self/cgroup"), Path("/proc/vmstat")
CONTROLLERS = Path("/sys/fs/cgroup")


class OutOfMemoryKills:
    """The kernel's count of processes that it has killed for want of memory, in this control group.

    Where there is no such count, that of the whole machine is taken. Workers are of their caller's control group.
    """

    def __init__(self) -> None:
        self._known = count_kills()

    def claim(self) -> bool:
        """Whether one has been counted since the last claim, which is then the caller's."""
        has_more = count_kills() > self._known
        self._known += has_more
        return has_more


def count_kills() -> int:
    """The kernel's count at this moment; 0 where it has none."""
    return next((count for path in _list_counters() for count in _read_count(path)), 0)


def _list_counters() -> Iterator[Path]:
    """From the most specific one: control groups of version 2 and 1, then the machine."""
    try:
        lines = GROUPS.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            yield CONTROLLERS / group.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            yield CONTROLLERS / "memory" / group.lstrip("/") / "memory.oom_control"
            yield CONTROLLERS / "memory" / "memory.oom_control"  # inside a container, whose name for itself is another
    yield MACHINE


def _read_count(path: Path) -> Iterator[int]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return
    yield from (int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
