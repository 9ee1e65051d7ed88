"""What the models of a file are made of: their base, and types that several share."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from paradigms.config import Size, unknown_name


class Spec(BaseModel):
    """A part of a file: immutable, and an unknown key is an error."""

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
            raise ValueError(f"must be {expected}, got {shown!r}") from None

    return WrapValidator(check)


Probability = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[Size, described("a number of pixels or [rows, columns]")]
