"""Writes the checkpoints of a run in its process, and continues from the last one."""

import json
import logging
import os
import pickle
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from types import FrameType
from typing import Any

from harness.checkpoint import Checkpoint, locate_checkpoints
from harness.execution.open_run import OpenRun, Resumed
from harness.execution.prepared import Prepared
from harness.files import write_atomically
from harness.record import EpochMetrics
from harness.trace import find_place
from harness.train import Training

SHARE = 0.03
"""Of the time, that checkpoints may take."""

SECONDS_BETWEEN_SIGNS = 10.0
"""A run that is killed is taken to have ended at its last sign of life."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Clock:
    """What is known of a run's attempts, in a file beside its checkpoints.

    Attributes:
        attempts: how often the run was started.
        seconds_lost: as in `Resumed`, before the last attempt began to train.
        started: when it began to train; seconds since the epoch, as all that follow.
        seen: the last sign of life.
    """

    attempts: int = 0
    seconds_lost: float = 0.0
    started: float = 0.0
    seen: float = 0.0


class Checkpoints:
    """The checkpoints of one run in its process.

    They follow the run's `keep_checkpoint` and `checkpoint_minutes`. A disk that takes no checkpoint ends no run.

    Of several ranks each continues from the same checkpoint, and rank 0 writes the next ones. At every step all agree
    whether one is due and whether the run is to end: rank 0 decides the former, a signal to any of them the latter.

    Attributes:
        found: the one that the run continues from; None: from its beginning.
    """

    def __init__(self, prepared: Prepared, open_run: OpenRun) -> None:
        run, tracker = prepared.run, prepared.context.tracker
        self._recipe, self._open_run = prepared.context.spec.recipe, open_run
        self._folder = locate_checkpoints(tracker.checkpoints, run.row.cell.id, run.seed)
        provenance = prepared.provenance
        names = [name for name in ("code_digest", "data_digest", "init_from") if name in provenance]
        self._origin = {**{name: provenance[name] for name in names}, **find_place(provenance)}
        self._born = time.time()
        self._clock_path = self._folder.path / "attempts.json"
        self._clock = self._read_clock()
        self._ranks = prepared.ranks
        self._written, self._cost = time.monotonic(), 0.0
        self._is_ending, self._has_warned = False, False
        self.found = self._find()

    def follow(self, training: Training) -> Iterator[Resumed | EpochMetrics]:
        """The epochs as they are trained, each with its checkpoint before; those of the checkpoint in one message."""
        self._ranks = training.ranks
        resumed = self._resume(training)
        if resumed is not None:
            yield resumed
        training.after_step = lambda: self._after_step(training)
        self._written = time.monotonic()
        with self._watching_sigterm():
            for epoch in training:
                curve = (*self._open_run.curve, epoch)
                if self._agree(self._is_due(minutes=0.0)):
                    self._write(training, curve)
                yield epoch
                self._end_if_asked()

    def _find(self) -> Checkpoint | None:
        found = self._folder.find()
        if found is None:
            return None
        changed = [
            name for name in {**found.origin, **self._origin} if found.origin.get(name) != self._origin.get(name)
        ]
        if changed:
            self._restart(f"was made with another {', '.join(changed)}")
            return None
        return found

    def _restart(self, why: str) -> None:
        logger.warning("the checkpoint in %s %s; the run starts from the beginning", self._folder.path, why)

    def _resume(self, training: Training) -> Resumed | None:
        """Load the checkpoint that was found; whatever else is there does not count from here on."""
        resumed, clock = None, self._clock
        state = None if self.found is None else self._read_state(self.found)
        if self.found is not None and state is not None:
            training.load_state_dict(state)
            lost = max(0.0, clock.seen - max(clock.started, self.found.written)) + time.time() - self._born
            self._clock = _Clock(clock.attempts + 1, clock.seconds_lost + lost)
            resumed = Resumed(self.found, self._clock.attempts, self._clock.seconds_lost)
        else:
            self._clock = _Clock(1)
        self._ranks.wait()  # until all have read it
        if self._ranks.is_first:
            with self._tolerating_disk():
                self._folder.keep(self.found if resumed else None)
        self._clock = replace(self._clock, started=time.time())
        self._sign()
        return resumed

    def _read_state(self, checkpoint: Checkpoint) -> dict[str, Any] | None:
        try:
            return self._folder.read_state(checkpoint)
        except pickle.UnpicklingError:  # an optimizer of timm may keep more than tensors and numbers
            self._restart("has a state that does not load without executing code")
            return None

    def _after_step(self, training: Training) -> None:
        if self._agree(self._is_due(self._recipe.checkpoint_minutes)):
            self._write(training, tuple(self._open_run.curve))
            self._end_if_asked()
        elif time.time() - self._clock.seen > SECONDS_BETWEEN_SIGNS:
            self._sign()

    def _is_due(self, minutes: float) -> bool:
        passed = time.monotonic() - self._written
        return passed >= 60 * minutes and self._cost <= SHARE * passed

    def _agree(self, is_due: bool) -> bool:
        """Whether all ranks write a checkpoint now, which they also do where one of them is asked to end."""
        return self._ranks.any(self._is_ending or (is_due and self._ranks.is_first))

    def _write(self, training: Training, curve: tuple[EpochMetrics, ...]) -> None:
        start, now = time.monotonic(), time.time()
        assert self._open_run.run_id is not None
        seconds = now - self._open_run.started
        checkpoint = Checkpoint(self._origin, self._open_run.run_id, training.step, seconds, now, curve)
        state = training.state_dict()
        if self._ranks.is_first:
            with self._tolerating_disk():
                self._folder.write(checkpoint, state)
        self._sign()
        self._ranks.wait()  # the others must not end before it is written
        self._written = time.monotonic()
        self._cost = self._written - start

    def _sign(self) -> None:
        """Note that the run goes on; a loss of power may undo it."""
        self._clock = replace(self._clock, seen=time.time())
        if self._ranks.is_first:
            with self._tolerating_disk():
                write_atomically(self._clock_path, json.dumps(asdict(self._clock)))

    def _read_clock(self) -> _Clock:
        try:
            return _Clock(**json.loads(self._clock_path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return _Clock()

    @contextmanager
    def _tolerating_disk(self) -> Iterator[None]:
        """Warn once of what the file system refuses."""
        try:
            yield
        except OSError as error:
            if not self._has_warned:
                logger.warning(
                    "no checkpoint can be written to %s: %s; training continues", self._folder.path, error.strerror
                )
            self._has_warned = True

    @contextmanager
    def _watching_sigterm(self) -> Iterator[None]:
        """Inside, SIGTERM ends the process after a checkpoint at the end of the next step or epoch."""

        def note(_number: int, _frame: FrameType | None) -> None:
            self._is_ending = True

        before = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _end_if_asked(self) -> None:
        """By the same signal: so the process that waits for this one learns why."""
        if self._ranks.any(self._is_ending):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
