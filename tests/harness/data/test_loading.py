"""A process that loads images and is killed is no bug of the run."""

import faulthandler
import os
import signal
import time

import pytest

from harness.data import loading
from harness.data.loading import LoadingContext, LoadingProcess, watching_loaders
from harness.errors import LoaderKilled, StoreError


def end_by(number: int | None) -> None:
    faulthandler.disable()  # pytest's, which would print where the signal was met
    if number is not None:
        os.kill(os.getpid(), number)
    time.sleep(600)


def start(number: int | None = None) -> LoadingProcess:
    process = LoadingContext().Process(target=end_by, args=(number,), daemon=True)
    process.start()
    return process


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGKILL, r"a process that loads images was killed by signal 9 \(SIGKILL\)$"),
        (signal.SIGBUS, r"killed by signal 7 \(SIGBUS\); shared memory may be full"),
        (35, "killed by signal 35$"),
    ],
    ids=["kill", "bus", "without a name"],
)
@pytest.mark.parametrize("error", [RuntimeError, StoreError], ids=["of torch", "of a store that it interrupted"])
def test_the_signal_that_has_killed_a_loading_process_is_told(
    error: type[Exception], number: int, message: str
) -> None:
    with pytest.raises(LoaderKilled, match=message) as caught, watching_loaders():
        start(number).join()
        raise error("DataLoader worker exited unexpectedly")
    assert caught.value.signal == number


def test_errors_beside_loading_processes_stay_what_they_are() -> None:
    """One that goes on, and one that torch has ended, are no reason."""
    ended, going_on = start(), start()
    with pytest.raises(RuntimeError, match="a bug"), watching_loaders():
        loading._started[:] = [ended, going_on]
        ended.terminate()
        ended.join()
        raise RuntimeError("a bug")
    going_on.kill()
    going_on.join()
