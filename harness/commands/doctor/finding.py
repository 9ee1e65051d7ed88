"""The finding of a check: ok, warning or problem, with advice."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """`problem`: something will not work. `warning`: something is slower, older or missing that one may want."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One line: how bad it is, what was looked at, what was found, and what to do where it is not ok."""

    level: Level
    topic: str
    found: str
    advice: str = ""
