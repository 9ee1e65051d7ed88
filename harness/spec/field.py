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
    """The base class of all models: immutable; an unknown key is an error.

    Attributes:
        former_keys: for keys of earlier versions, what replaces them.
    """

    former_keys: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def known(kind: str, names: Sequence[str]) -> AfterValidator:
    """A name that must be one of `names`; the error message gives the nearest one."""

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
    """Check that a text is one line and not empty."""
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
"""The name of a row in tables and figures."""

Line = Annotated[str, AfterValidator(_check_line)]
"""A title or a source, on one line."""

Text = Annotated[str, AfterValidator(_check_text)]
"""A text of any number of lines."""
OneOrMore = BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
"""A list of names, which may also be given as a single name."""

Probability = Annotated[float, Field(ge=0, le=1)]

# Limits: far above every published model, but small enough that a plan can be listed and a model can be built.
Replicates = Annotated[int, Field(gt=0, le=1_000)]
Images = Annotated[int, Field(gt=0, le=1_000_000_000)]
ImagesOrNone = Annotated[int, Field(ge=0, le=1_000_000_000)]
Classes = Annotated[int, Field(gt=0, le=1_000_000)]
Epochs = Annotated[int, Field(gt=0, le=100_000)]
EpochsOrNone = Annotated[int, Field(ge=0, le=100_000)]
Processes = Annotated[int, Field(gt=0, le=1_000)]
Side = Annotated[int, Field(gt=0, le=4_096)]
"""Side of an image or of a patch in pixels."""

MAX_CHANNELS = 65_536
Channels = Annotated[int, Field(gt=0, le=MAX_CHANNELS)]
"""Channels of a layer; also heads, since there are at most as many heads as channels."""

Blocks = Annotated[int, Field(gt=0, le=256)]
Ratio = Annotated[float, Field(gt=0, le=1_000)]
"""Ratio of hidden channels to channels."""

MAX_STAGES = 8
ForStages = Field(min_length=1, max_length=MAX_STAGES)
"""The annotation of lists with one entry per stage."""

MAX_WINDOW = 256
_WindowSide = Annotated[int, Field(le=MAX_WINDOW)]
Pixels = Annotated[
    _WindowSide | tuple[_WindowSide, _WindowSide],
    described(f"a number of pixels or [rows, columns], at most {MAX_WINDOW}"),
]
"""The size of a window, a kernel or a chunk: one number, or rows and columns."""
