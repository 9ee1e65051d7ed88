"""The base class of all models, and field types that several models share."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from harness.text import find_control
from paradigms.facts import shorten, unknown_name

MAX_NAME_LENGTH = 200


class Spec(BaseModel):
    """A part of a file: immutable, and an unknown key is an error.

    Attributes:
        former_keys: what became of keys of earlier versions.
    """

    former_keys: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def known(kind: str, names: Sequence[str]) -> AfterValidator:
    """A name that is one of `names`; another one is told with the nearest."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(unknown_name(kind, name, tuple(names)))
        return name

    return AfterValidator(check)


def described(expected: str) -> WrapValidator:
    """One message for a value that may have several types."""

    def check(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError:
            shown = list(value) if isinstance(value, tuple) else value
            raise ValueError(f"must be {expected}, got {shorten(repr(shown))}") from None

    return WrapValidator(check)


def _check_line(text: str) -> str:
    """Something to read, on one line."""
    if not text.strip():
        raise ValueError("must not be empty")
    if text != text.strip():
        raise ValueError(f"must not begin or end with a blank, got {text!r}")
    control = find_control(text)
    if control is not None:
        raise ValueError(f"must be one line without control characters, got {control} in {text!a}")
    return text


def _check_name(name: str) -> str:
    if len(name) > MAX_NAME_LENGTH:
        raise ValueError(f"must have at most {MAX_NAME_LENGTH} characters, got {len(name)}")
    return _check_line(name)


def _check_text(text: str) -> str:
    control = find_control(text.replace("\n", " ").replace("\t", " "))
    if control is not None:
        raise ValueError(f"must have no control characters, got {control}")
    return text


Name = Annotated[str, AfterValidator(_check_name)]
"""Of a row, as tables and figures show it."""

Line = Annotated[str, AfterValidator(_check_line)]
"""A title, or a source."""

Text = Annotated[str, AfterValidator(_check_text)]
"""Of as many lines as one likes."""
OneOrMore = BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
"""Of a list of names: one name alone is a list of it."""

Probability = Annotated[float, Field(ge=0, le=1)]

# Limits: far beyond every published model, and within what a plan can list and a model can be built of.
Replicates = Annotated[int, Field(gt=0, le=1_000)]
Images = Annotated[int, Field(gt=0, le=1_000_000_000)]
ImagesOrNone = Annotated[int, Field(ge=0, le=1_000_000_000)]
Classes = Annotated[int, Field(gt=0, le=1_000_000)]
Epochs = Annotated[int, Field(gt=0, le=100_000)]
EpochsOrNone = Annotated[int, Field(ge=0, le=100_000)]
Processes = Annotated[int, Field(gt=0, le=1_000)]
Side = Annotated[int, Field(gt=0, le=4_096)]
"""Pixels of an image's side, or of a patch's."""

MAX_CHANNELS = 65_536
Channels = Annotated[int, Field(gt=0, le=MAX_CHANNELS)]
"""Of a layer; also heads, since there are at most as many."""

Blocks = Annotated[int, Field(gt=0, le=256)]
Ratio = Annotated[float, Field(gt=0, le=1_000)]
"""Hidden channels for each channel."""

MAX_STAGES = 8
ForStages = Field(min_length=1, max_length=MAX_STAGES)
"""What a list with one entry per stage is annotated with."""

MAX_WINDOW = 256
_WindowSide = Annotated[int, Field(le=MAX_WINDOW)]
Pixels = Annotated[
    _WindowSide | tuple[_WindowSide, _WindowSide],
    described(f"a number of pixels or [rows, columns], at most {MAX_WINDOW}"),
]
"""Of a window, a kernel or a chunk: a size of `paradigms.config`."""
