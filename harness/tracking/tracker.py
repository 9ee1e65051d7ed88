"""The protocol that the harness requires of a store of runs."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.measure import Measure
from harness.plan import PlannedRun
from harness.record import EpochMetrics, Record, RunStatus
from harness.spec import ExperimentSpec
from harness.tasks import DEFAULT_MEASURE
from harness.trace import Rehearsal
from harness.tracking.process import ProcessIdentity
from harness.tracking.record_files import Arrays, PortableRun

SECONDS_BETWEEN_TRIES = 0.5
"""To get the claim of a key that another process has."""


@dataclass(frozen=True)
class LiveRun:
    """A run that some process has started and not ended."""

    run_id: str
    cell_id: str
    row: str
    seed: int
    host: str
    pid: int


@dataclass(frozen=True)
class StoredRun:
    """A run in a store, ended or not. It may be a copy of another experiment's run.

    Attributes:
        overrides: the `--set` pairs that it was made with.
        levels: of each factor, as people read them.
        record: how it ended, without its curve; None while it is open.
        is_live: whether a process may still be executing it.
        started: seconds since the epoch.
        process: the process that executes or executed it; as long as that is not known, that of its command.
        reused_from: the id of the run that it copies; empty if it is not a copy.
        origin: the id of the run in the store where it was trained.
        title: of its experiment.
    """

    run_id: str
    experiment: str
    recipe: str
    overrides: tuple[str, ...]
    cell_id: str
    row: str
    seed: int
    levels: Mapping[str, str]
    record: Record | None
    is_live: bool
    started: float
    process: ProcessIdentity
    reused_from: str = ""
    origin: str = ""
    title: str = ""


@dataclass(frozen=True)
class RunDetails:
    """What of a run is read when somebody looks at it.

    Attributes:
        curve: every metric of every epoch.
        config: the resolved config; empty where its file is gone.
        command: what the user typed to make it.
        location: the folder or address of its artifacts.
        artifacts: their names.
    """

    curve: tuple[EpochMetrics, ...]
    config: Mapping[str, Any]
    command: str
    location: str
    artifacts: tuple[str, ...]


class Tracker(Protocol):
    """Remembers runs; every method raises `StoreError` where the store cannot be used.

    Only the process of a command writes: it calls `prepare` first, and `start_run` notes its identity. So a run whose
    process died can be told from one that goes on. Before it starts a run it takes the claim of it.
    """

    @property
    def checkpoints(self) -> Path:
        """The folder on this machine for the checkpoints of runs that have not ended."""
        ...

    def shorten_timeouts(self) -> None:
        """Wait for a store that does not answer no longer: somebody has interrupted this process."""

    def prepare(self, experiment: str, *, measure: Measure = DEFAULT_MEASURE) -> None:
        """Create the store and the experiment where they do not exist yet; its page shows `measure`."""

    def start_invocation(self, spec: ExperimentSpec, *, command: str, provenance: Mapping[str, str]) -> str:
        """Open the parent run of one call of `harness run`; returns its id."""
        ...

    def finish_invocation(
        self,
        run_id: str,
        status: RunStatus,
        *,
        counts: Mapping[RunStatus, int],
        files: Sequence[Path] = (),
        description: str = "",
    ) -> None:
        """Close a parent run with the number of runs of each status, the table's files and, in Markdown, the table."""

    def claim(self, key: str) -> str | None:
        """The id of this process's claim of a key; None where another process has it. See `harness.tracking.claims`."""
        ...

    def holds(self, claim: str, *, at_once: bool = True) -> bool:
        """Whether a claim is still this process's; without `at_once` the store is asked only where that is in doubt."""
        ...

    def release(self, claim: str) -> None:
        """Give a claim back."""

    def close_open(self, cell_id: str, seed: int) -> None:
        """End as `interrupted` what is open of a run whose claim this process has: whoever left it open is gone."""

    def start_run(self, run: PlannedRun, *, spec: ExperimentSpec, parent_id: str, provenance: Mapping[str, str]) -> str:
        """Open a run of this process with its levels, its resolved config and its provenance; returns its id."""
        ...

    def resume_run(self, run_id: str, *, spec: ExperimentSpec, parent_id: str) -> frozenset[int] | None:
        """Reopen an ended run of this experiment as the run of this process, and forget how it ended.

        Returns the epochs that `log_epoch` has written; None where the experiment has no such run.
        """
        ...

    def log_place(self, run_id: str, provenance: Mapping[str, str], worker: ProcessIdentity) -> None:
        """Write the run's own process, and the provenance with what it alone knows."""

    def log_epoch(self, run_id: str, epoch: EpochMetrics) -> None:
        """Write one epoch, in one call."""

    def log_file(self, run_id: str, path: Path) -> None:
        """Keep a file as an artifact of the same name."""

    def has_file(self, run_id: str, name: str) -> bool:
        """Whether a run has kept a file of this name."""
        ...

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Keep a text as the artifact `name`."""

    def fetch_file(self, run_id: str, name: str, folder: Path) -> Path:
        """Copy the artifact `name` of a run into a folder; of a light copy, that of the run that it shows."""
        ...

    def read_predictions(self, run_id: str) -> Arrays:
        """What a run has kept of each test image, as `Evaluation.per_image` has it; empty where it has kept nothing.

        Raises:
            StoreError: the file is damaged.
        """
        ...

    def finish_run(self, run_id: str, record: Record) -> None:
        """Write the outcome and close the run; the curve has been written by `log_epoch`."""

    def copy_run(self, record: Record, run: PlannedRun, *, spec: ExperimentSpec, parent_id: str) -> str:
        """Show a run of another experiment in this one, once; returns the id of the copy.

        A run that is of this experiment is not copied; its own id is returned.
        """
        ...

    def ledger(self, cell_ids: Iterable[str], *, curves: Sequence[str] = ()) -> list[Record]:
        """Every ended run of these cells in the whole store, newest first, copies left out.

        `curves` names the metrics whose curve is read too; a record's curve is empty otherwise.
        """
        ...

    def read_records(
        self, experiment: str, cell_ids: Iterable[str], *, curves: Sequence[str] = (DEFAULT_MEASURE.val,)
    ) -> list[Record]:
        """Every ended run of these cells in one experiment, newest first, copies included."""
        ...

    def close_dead_runs(self) -> list[str]:
        """End as `interrupted` what processes of this host that are gone left open; returns the ids."""
        ...

    def running_elsewhere(self) -> list[LiveRun]:
        """Runs that other processes, here or on other hosts, have open."""
        ...

    def import_run(self, run: PortableRun) -> bool:
        """Store a run of another store; False where this one has it in the run's experiment already."""

    def list_origins(self, experiment: str) -> frozenset[str]:
        """The ids, where they were trained, of the ended runs of one experiment, copies included."""
        ...

    def log_rehearsal(self, rehearsal: Rehearsal, row: str) -> None:
        """Keep a rehearsal, called after its row."""

    def read_rehearsals(self, cell_ids: Iterable[str]) -> list[Rehearsal]:
        """Every rehearsal of these cells, newest first, without their traces."""
        ...

    def read_trace(self, cell_id: str, digest: str) -> dict[str, Any]:
        """The trace of this digest of a cell; empty where the store has none."""
        ...

    def list_experiments(self) -> tuple[str, ...]:
        """The names of the experiments that the store has, or once had, runs of."""
        ...

    def find_runs(self, prefix: str = "", *, experiments: Collection[str] | None = None) -> list[StoredRun]:
        """Every run, of some experiments or of all, whose id, or whose cell's id, begins so.

        Newest first, copies included. All runs of a large store take a millisecond or two each.
        """
        ...

    def find_runs_of(self, cell_ids: Iterable[str]) -> list[StoredRun]:
        """Every run of these cells in the whole store; newest first, copies included."""
        ...

    def read_details(self, run_id: str) -> RunDetails:
        """The rest of what is known of a run."""
        ...


@contextmanager
def locked(tracker: Tracker, key: str) -> Iterator[None]:
    """Inside, no other process is inside with this key; waits for one that is."""
    while (claim := tracker.claim(key)) is None:
        time.sleep(SECONDS_BETWEEN_TRIES)
    try:
        yield
    finally:
        tracker.release(claim)
