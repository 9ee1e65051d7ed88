"""What is to be written to a server that does not answer waits on this machine's disk, and is written once, in order.

Each process has a folder of its own below `spool/`: a file with one write per line, and the files of artifacts. What a
process leaves there when it ends, the next command on the same store writes.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.files import write_atomically
from harness.tracking.patience import is_unreachable
from harness.tracking.process import ProcessIdentity

SECONDS_BETWEEN_TRIES = 5.0
"""To reach the server again."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Write:
    """One write to the store; to do it twice changes nothing.

    Attributes:
        run_id: of the run that it belongs to.
        metrics: name, value, milliseconds since the epoch, and step.
        file: an artifact's name; its content lies in the folder of the spool.
        status: closes the run with this status of MLflow.
        is_removal: removes the run, which is a claim.
        time: milliseconds since the epoch.
    """

    run_id: str
    metrics: tuple[tuple[str, float, int, int], ...] = ()
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    file: str = ""
    status: str = ""
    is_removal: bool = False
    time: int = field(default_factory=lambda: round(1000 * time.time()))


class Spool:
    """The writes of one process that wait.

    Args:
        root: the folder of all spools.
        address: of the server; a spool is of one server.
        place: the server's name for people.
        perform: does a write at once; of an artifact with its file.
    """

    def __init__(self, root: Path, address: str, place: str, perform: Callable[[Write, Path | None], None]) -> None:
        self._root, self._place, self._perform = root, place, perform
        self._server = sha256(address.encode()).hexdigest()[:12]
        process = ProcessIdentity.current()
        self._folder = root / f"{self._server}-{process.host}-{process.pid}-{process.started:.0f}"
        self._waiting = 0
        self._tried = 0.0

    def post(self, write: Write, file: Path | None = None) -> None:
        """Do a write, or keep it until the server answers; writes that wait are done before.

        Raises:
            OSError: nor can it be kept.
        """
        from mlflow.exceptions import MlflowException

        if not self._waiting or time.monotonic() - self._tried > SECONDS_BETWEEN_TRIES:
            try:
                self.flush()
                self._perform(write, file)
            except (MlflowException, OSError) as error:  # those of requests are OSErrors
                if not is_unreachable(error):
                    raise
            else:
                return
        self._keep(write, file)

    def flush(self) -> None:
        """Do all writes of this process that wait; raises what the server raises."""
        if not self._waiting:
            return
        self._tried = time.monotonic()
        self._replay(self._folder, lambda _run_id: True)
        logger.warning("%s answers again: %d writes that waited are done", self._place, self._waiting)
        self._waiting = 0

    def adopt(self, is_of: Callable[..., bool]) -> None:
        """Do what processes of this host have left that have ended.

        `is_of(run_id, process=...)` tells whether a run is still that process's: another one may have gone on with it.
        """
        for folder in sorted(self._root.glob(f"{self._server}-*")):
            owner = _read_owner(folder)
            if owner is not None and owner.is_gone:
                self._replay(folder, partial(is_of, process=owner))
                logger.warning("wrote to %s what an earlier call could not", self._place)

    def _replay(self, folder: Path, is_wanted: Callable[[str], bool]) -> None:
        for write in _read(folder / "writes.jsonl"):
            if is_wanted(write.run_id):
                self._perform(write, folder / f"{write.run_id}-{write.time}" / write.file if write.file else None)
        shutil.rmtree(folder, ignore_errors=True)

    def _keep(self, write: Write, file: Path | None) -> None:
        if not self._waiting:
            self._tried = time.monotonic()
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._folder / "owner.json", json.dumps(asdict(ProcessIdentity.current())))
            logger.warning("%s does not answer: what is to be written waits in %s", self._place, self._folder)
        if file is not None:
            place = self._folder / f"{write.run_id}-{write.time}"
            place.mkdir(exist_ok=True)
            shutil.copyfile(file, place / write.file)
        with (self._folder / "writes.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(write)) + "\n")
        self._waiting += 1


def _read(path: Path) -> Iterator[Write]:
    """The writes of a file in order; half a line is what a killed process was about to keep."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            content: dict[str, Any] = json.loads(line)
        except ValueError:
            return
        yield Write(**{**content, "metrics": tuple(tuple(point) for point in content["metrics"])})


def _read_owner(folder: Path) -> ProcessIdentity | None:
    try:
        return ProcessIdentity(**json.loads((folder / "owner.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def to_write(
    run_id: str,
    *,
    metrics: Mapping[str, float] | None = None,
    step: int = 0,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    status: str = "",
) -> Write:
    """A write at this moment, with all metrics at one step."""
    now = round(1000 * time.time())
    points = tuple((name, float(value), now, step) for name, value in (metrics or {}).items())
    return Write(run_id, points, dict(params or {}), dict(tags or {}), status=status, time=now)
