"""Retries calls to an unreachable server for some minutes, and reports each failure.

MLflow's own repetitions say nothing for seven minutes, and ignore that somebody wants to stop.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

SECONDS_TO_WAIT = 300.0
"""For a server that does not answer, before a call fails."""

LONGEST_PAUSE = 30.0
SECONDS_OF_REQUEST = 30
SECONDS_WHEN_SHORTENED = 2

logger = logging.getLogger(__name__)


def disable_mlflow_retries() -> None:
    """Let MLflow make each request once, unless the user's environment says otherwise."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SECONDS_OF_REQUEST))


class Patience:
    """How long one tracker waits for its server, `place`.

    Attributes:
        before: called before each call, as a part of it.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self.before: Callable[[], None] = lambda: None
        self._has_short_timeouts = False

    def shorten_timeouts(self) -> None:
        """Make every further call once, and briefly: somebody waits for this process to end."""
        self._has_short_timeouts = True
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(SECONDS_WHEN_SHORTENED)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call until the server has answered; what it answers is returned or raised."""
        from mlflow.exceptions import MlflowException

        pauses, end, is_late = _make_pauses(), time.monotonic() + SECONDS_TO_WAIT, False
        while True:
            try:
                self.before()
                value = function(*args, **kwargs)
            except (MlflowException, OSError) as error:  # those of requests are OSErrors
                pause = next(pauses)
                if self._has_short_timeouts or not is_unreachable(error) or time.monotonic() + pause > end:
                    raise
                logger.warning("%s does not answer, the next attempt is in %.0f s", self._place, pause)
                is_late = True
                time.sleep(pause)
            else:
                if is_late:
                    logger.warning("%s answers again", self._place)
                return value


class Patient:
    """An object whose methods are called with patience."""

    def __init__(self, wrapped: object, patience: Patience) -> None:
        self._wrapped = wrapped
        self._patience = patience

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        return partial(self._patience.call, found) if callable(found) else found


def is_unreachable(error: BaseException) -> bool:
    """Whether a request has no whole answer, or that of a server that is not well: by type, since messages change."""
    from requests.exceptions import ChunkedEncodingError, RetryError, Timeout
    from requests.exceptions import ConnectionError as NoConnection

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, NoConnection | Timeout | RetryError | ChunkedEncodingError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _make_pauses() -> Iterator[float]:
    """Seconds: 1, 2, 4, ..."""
    pause = 1.0
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE)
