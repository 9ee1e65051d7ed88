"""Claims of threads, of processes that are killed, and of hosts that fall silent."""

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from mlflow import MlflowClient

from harness.tracking import MlflowTracker, claims, locked
from harness.tracking.process import ProcessIdentity
from harness.tracking.translation import to_process_tags

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def tracker(tracking_uri: str) -> MlflowTracker:
    return MlflowTracker(tracking_uri)


@pytest.fixture
def other(tracking_uri: str) -> MlflowTracker:
    return MlflowTracker(tracking_uri)


def test_a_key_has_one_holder_until_it_is_released(tracker: MlflowTracker, other: MlflowTracker) -> None:
    claim = tracker.claim("a")
    assert claim is not None
    assert other.claim("a") is None
    assert tracker.claim("a") is None
    assert other.claim("b") is not None
    assert tracker.holds(claim)
    assert not other.holds(claim)
    tracker.release(claim)
    assert not tracker.holds(claim)
    assert other.claim("a") is not None


def test_of_many_that_ask_at_once_one_gets_it(tracking_uri: str) -> None:
    """Each key is asked for by all threads together; every thread has a connection of its own."""
    keys, won, barrier = [f"key {number}" for number in range(8)], Counter[str](), threading.Barrier(4)

    def ask() -> None:
        tracker = MlflowTracker(tracking_uri)
        for key in keys:
            barrier.wait()
            if tracker.claim(key) is not None:
                won[key] += 1

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == dict.fromkeys(keys, 1)


def hold(tracking_uri: str, started: "multiprocessing.synchronize.Event") -> None:
    assert MlflowTracker(tracking_uri).claim("a") is not None
    started.set()
    time.sleep(60)


def test_what_a_killed_process_held_is_free_at_once(tracker: MlflowTracker, tracking_uri: str) -> None:
    started = SPAWN.Event()
    process = SPAWN.Process(target=hold, args=(tracking_uri, started))
    process.start()
    assert started.wait(60)
    assert tracker.claim("a") is None
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    tracker.close_dead_runs()
    assert not tracker._claims._list_open()
    assert tracker.claim("a") is not None


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats of tenths of seconds."""
    monkeypatch.setattr(claims, "SECONDS_BETWEEN_BEATS", 0.1)
    monkeypatch.setattr(claims, "SECONDS_OF_SILENCE", 0.5)


@contextmanager
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if this process were on another host."""
    identity = ProcessIdentity("elsewhere", 1, 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(claims, "to_process_tags", lambda _: to_process_tags(identity))
        yield


def ask_for(tracker: MlflowTracker, key: str, seconds: float) -> str | None:
    end = time.monotonic() + seconds
    while (claim := tracker.claim(key)) is None and time.monotonic() < end:
        time.sleep(0.05)
    return claim


@pytest.mark.usefixtures("quick")
def test_a_claim_of_another_host_lives_as_long_as_its_heart_beats(
    tracker: MlflowTracker, other: MlflowTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with elsewhere(monkeypatch):
        claim = other.claim("a")
    assert claim is not None
    assert ask_for(tracker, "a", 2.0) is None
    assert other.holds(claim)
    other._claims._has_ended.set()  # that host is switched off
    assert ask_for(tracker, "a", 10.0) is not None
    assert not other.holds(claim)
    other.release(claim)  # it comes back, and takes nothing away
    assert other.claim("a") is None


@pytest.mark.usefixtures("quick")
def test_a_process_that_was_stopped_knows_that_it_may_have_lost_its_claims(tracker: MlflowTracker) -> None:
    claim = tracker.claim("a")
    assert claim is not None
    assert not tracker._claims.may_be_lost
    tracker._claims._has_ended.set()
    time.sleep(0.6)
    assert tracker._claims.may_be_lost
    MlflowClient(tracker.store.uri).delete_run(claim)
    assert not tracker.holds(claim, at_once=False)


def test_a_lock_lets_one_in_at_a_time(tracking_uri: str) -> None:
    inside, most = list[int](), list[int]()

    def enter() -> None:
        with locked(MlflowTracker(tracking_uri), "import"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
