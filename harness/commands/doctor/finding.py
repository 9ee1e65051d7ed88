"""The finding of a check: ok, warning or problem, with advice."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """`problem`: something will not work. `warning`: something optional is slow, old or missing."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """The result of a check: its level, its subject, what was found, and what to do if it is not ok."""

    level: Level
    topic: str
    found: str
    advice: str = ""
