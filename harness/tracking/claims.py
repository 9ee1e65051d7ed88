"""Claims: of several processes that share a store, the one that holds the claim of a key may do its work.

A claim is a run in the store that is open as long as it holds. A thread of the process that holds it writes a heartbeat
to it, so that a claim whose process is gone can be told from one that goes on. The first live claim of a key wins.
"""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.tracking.patience import is_unreachable
from harness.tracking.process import ProcessIdentity
from harness.tracking.translation import to_process, to_process_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "claims"

SECONDS_BETWEEN_BEATS = 15.0
SECONDS_OF_SILENCE = 120.0
"""After so long without a heartbeat a process of another host is taken to have ended."""

SECONDS_BETWEEN_LOOKS = 0.2
"""While two processes agree on who was first."""

logger = logging.getLogger(__name__)


@dataclass
class _Observed:
    """The heartbeat of a claim of another host, as it was seen last; clocks of two hosts are never compared.

    Attributes:
        silent: seconds for which it has not changed while this process could look.
        seen: when it was looked at, on this process's clock.
    """

    beat: str
    silent: float
    seen: float


@dataclass
class Claims:
    """The claims of one process on a store.

    Attributes:
        bare_client: does not wait for a server that is gone.
        experiment_id: of the experiment `claims` in the store.
    """

    client: "MlflowClient"
    bare_client: "MlflowClient"
    experiment_id: str
    _held: dict[str, float] = field(default_factory=dict, init=False)
    _observed: dict[str, _Observed] = field(default_factory=dict, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _has_ended: threading.Event = field(default_factory=threading.Event, init=False)

    def take(self, key: str) -> str | None:
        """The id of a new claim; None where another process has the key.

        Of processes that ask at once one wins, whatever their clocks say: each announces its claim, waits until no
        earlier one is undecided, and confirms. Whoever sees a confirmed claim withdraws, unless its own is confirmed
        and the earlier one.
        """
        if any(self._find_others(key)):
            return None
        identity = to_process_tags(ProcessIdentity.current())
        made = self.client.create_run(self.experiment_id, tags={"claims": key, **identity}, run_name=key)
        try:
            has_won = self._settle(key, made)
        except BaseException:  # others would wait for a claim that nobody confirms
            remove_claim(self.client, made.info.run_id)
            raise
        if not has_won:
            remove_claim(self.client, made.info.run_id)
            return None
        self._hold(made.info.run_id)
        return str(made.info.run_id)

    def _settle(self, key: str, made: "Run") -> bool:
        """Confirm a claim that was made; whether it has won."""
        own = (made.info.start_time, made.info.run_id)
        for is_confirmed in (False, True):
            while True:
                others = list(self._find_others(key, own_id=made.info.run_id))
                earlier = [run for run in others if (run.info.start_time, run.info.run_id) < own]
                if any(_is_confirmed(run) for run in (earlier if is_confirmed else others)):
                    return False
                if not earlier:
                    break
                time.sleep(SECONDS_BETWEEN_LOOKS)
            if not is_confirmed:
                self.client.set_tag(made.info.run_id, "confirmed", "true")
        return True

    def holds(self, claim: str) -> bool:
        """Whether nobody has taken the key over, which happens to a process that was stopped for long.

        As far as is known: where the server does not answer, it will tell before anything is written.
        """
        from mlflow.exceptions import MlflowException

        if claim not in self._held:
            return False
        try:
            return str(self.bare_client.get_run(claim).info.lifecycle_stage) == "active"
        except (MlflowException, OSError) as error:
            if is_unreachable(error):
                return True
            raise

    @property
    def may_be_lost(self) -> bool:
        """Whether this process has not written its heartbeats for so long that others may have taken its keys over."""
        return any(time.time() - beat > SECONDS_OF_SILENCE / 2 for beat in list(self._held.values()))

    def forget(self, claim: str) -> None:
        """Let a claim's heart stop; it is to be removed from the store."""
        self._held.pop(claim, None)
        if not self._held and self._thread is not None:
            self._has_ended.set()
            self._thread = None

    def remove_dead(self) -> None:
        """Remove what processes that are gone have left, also of work that is done and that nobody will claim again."""
        for run in self._list_open():
            if self._is_gone(run):
                remove_claim(self.client, run.info.run_id)

    def _find_others(self, key: str, own_id: str = "") -> "Iterator[Run]":
        """The live claims of a key but for one; those of processes that are gone are removed."""
        for run in self._list_open():
            if run.data.tags.get("claims") != key or run.info.run_id == own_id:
                continue
            if self._is_gone(run):
                remove_claim(self.client, run.info.run_id)
            else:
                yield run

    def _list_open(self) -> "list[Run]":
        found = self.client.search_runs([self.experiment_id], "attributes.status = 'RUNNING'", max_results=10_000)
        return list(found)

    def _is_gone(self, run: "Run") -> bool:
        process = to_process(run)
        if process.is_here or not process.host:
            return process.is_gone
        now, beat = time.monotonic(), run.data.tags.get("heartbeat", "")
        seen = self._observed.get(run.info.run_id)
        if seen is None or seen.beat != beat:
            self._observed[run.info.run_id] = _Observed(beat, 0.0, now)
            return False
        # where this process itself could not look, nothing is known of the time between
        seen.silent += min(now - seen.seen, SECONDS_BETWEEN_BEATS)
        seen.seen = now
        return seen.silent > SECONDS_OF_SILENCE

    def _hold(self, claim: str) -> None:
        self._held[claim] = time.time()
        if self._thread is None:
            self._has_ended = threading.Event()
            self._thread = threading.Thread(target=self._beat, args=(self._has_ended,), daemon=True)
            self._thread.start()

    def _beat(self, has_ended: threading.Event) -> None:
        from mlflow.exceptions import MlflowException

        while not has_ended.wait(SECONDS_BETWEEN_BEATS):
            for claim in list(self._held):
                try:
                    self.bare_client.set_tag(claim, "heartbeat", str(time.time()))
                except (MlflowException, OSError) as error:  # the next beat tries again
                    logger.debug("no heartbeat: %s", error)
                else:
                    if claim in self._held:
                        self._held[claim] = time.time()


def remove_claim(client: "MlflowClient", claim: str) -> None:
    """Remove a claim; of two processes that do so at once one is late, and finds it removed."""
    from mlflow.exceptions import MlflowException

    try:
        client.delete_run(claim)
    except MlflowException:
        if client.get_run(claim).info.lifecycle_stage == "active":
            raise


def _is_confirmed(run: "Run") -> bool:
    return "confirmed" in run.data.tags
