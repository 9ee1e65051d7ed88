"""The exceptions of the harness, in one hierarchy.

HarnessError                a user's mistake or a bad outcome: one message, no traceback
├── SpecError               an experiment, a recipe or an option: file, line, key path
├── DataError               a dataset that is missing or damaged
│   └── ImageError          one image that cannot be decoded
├── StoreError              the tracking store cannot be used
├── PluginError             a custom level or dataset that cannot be used
├── LoadError               the machine is too busy to time anything
├── EngineError             workers cannot be started, or would execute other code
├── ServerError             a web page that does not start
├── WeightsError            a file of weights that cannot be read, or does not fit the row
└── RunError                a run ended without a result
    ├── Diverged            a number that is not finite
    └── LoaderKilled        a signal killed a process that loads images
"""

from enum import StrEnum
from pathlib import Path

from harness.names import to_printable


class Cause(StrEnum):
    """Why a training came to nothing: which numbers are not finite, or `chance` where the model guesses."""

    LOSS = "loss"
    GRADIENT = "gradient"
    WEIGHT = "weight"
    VALIDATION = "validation"
    CHANCE = "chance"


class HarnessError(Exception):
    """Something that the user is told in one message; `exit_code` is what the command line returns."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(to_printable(message))


class SpecError(HarnessError):
    """A mistake in a file or an option, with the place where it stands; `message` is without the place."""

    def __init__(self, message: str, *, path: Path | None = None, line: int | None = None, key: str = "") -> None:
        self.message = message
        place = "" if path is None else str(path)
        place += "" if line is None else f":{line}"
        super().__init__(": ".join(part for part in (place, key, message) if part))


class DataError(HarnessError):
    """A dataset is missing, damaged, or does not fit the recipe."""


class ImageError(DataError):
    """An image cannot be read or decoded."""


class StoreError(HarnessError):
    """The tracking store cannot be opened or written."""


class PluginError(HarnessError):
    """A plugin cannot be imported, or a level of it cannot be used."""


class LoadError(HarnessError):
    """Others use the machine, so that nothing timed now would be a result."""


class EngineError(HarnessError):
    """The processes that execute tasks cannot be started, or would execute other code than this process has seen."""


class ServerError(HarnessError):
    """A web page cannot be shown: its port is taken, its program missing, or it ended."""


class WeightsError(HarnessError):
    """A file holds no weights, or not those of the row's model."""


class RunError(HarnessError):
    """A run ended without a result."""


class Diverged(RunError):  # noqa: N818 - named after the status that it becomes
    """A loss, a gradient, a weight or a score is not finite.

    Attributes:
        reason: what is not finite, in words.
        step: the optimizer step (0-based) at which it was seen.
        cause: what kind of number it is.
        module: of a gradient or a weight: the path of the first module that has one; empty where none is known.
    """

    def __init__(self, reason: str, *, step: int, cause: Cause, module: str = "") -> None:
        super().__init__(f"{reason} at step {step}")
        self.reason, self.step, self.cause, self.module = reason, step, cause, module


class LoaderKilled(RunError):  # noqa: N818 - what has happened, like `Diverged`
    """A process that loads images was ended by a signal.

    Attributes:
        signal: its number.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number
