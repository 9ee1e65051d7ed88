"""The store at a tracking URI: its kind, whether it is usable, and how it is created."""

import os
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from harness.credentials import hide_credentials, split_credentials
from harness.errors import StoreError
from harness.project import find_root

SECONDS_TO_ANSWER = 5
FOLDER = "mlartifacts"
"""Beside a database: the files of its runs, `EXPERIMENT/RUN/artifacts/...`."""


def default_tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`; else `mlflow.db` in the root of what the user works on."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{find_root() / 'mlflow.db'}"


@dataclass(frozen=True)
class Store:
    """A tracking URI, understood.

    Raises:
        StoreError: MLflow does not keep runs behind such a URI.
    """

    given: str

    def __post_init__(self) -> None:
        if urlsplit(self.given).scheme in ("", "file"):
            raise StoreError(
                f"MLflow keeps no runs in plain folders any more, got {self.shown!r}; "
                "give sqlite:///PATH/mlflow.db or the address of a server"
            )
        if self.given.startswith("sqlite:") and self.database is None:
            raise StoreError(f"a database in memory ends with the process, got {self.shown!r}; give sqlite:///PATH")

    @cached_property
    def database(self) -> Path | None:
        """The absolute path of an SQLite database; None for every other store."""
        place = self.given.partition("?")[0]
        path = place.removeprefix("sqlite:///")
        return None if path in (place, "", ":memory:") else Path(path).absolute()

    @property
    def uri(self) -> str:
        """The same store from any working directory."""
        return self.given if self.database is None else f"sqlite:///{self.database}"

    @property
    def shown(self) -> str:
        """The URI without a password."""
        return hide_credentials(self.given)

    @property
    def journal(self) -> Path:
        """Optuna's journal file: beside a database, else at the root of what the user works on."""
        folder = find_root() if self.database is None else self.database.parent
        return folder / "optuna.journal"

    @property
    def checkpoints(self) -> Path:
        """The folder of unfinished runs: beside a database, else at the root of what the user works on."""
        return self.journal.with_name("checkpoints")

    @property
    def is_new(self) -> bool:
        """Whether nothing has ever been stored here; known of files only."""
        return self.database is not None and not self.database.exists()

    @property
    def is_server(self) -> bool:
        """Whether MLflow is asked over the network."""
        return urlsplit(self.given).scheme in ("http", "https")

    def artifact_location(self, experiment: str) -> str | None:
        """Where an experiment's files go: beside a database, or where a server wants them (None)."""
        if urlsplit(self.given).scheme in ("http", "https", "databricks"):
            return None
        folder = Path.cwd() if self.database is None else self.database.parent
        return (folder / FOLDER / experiment).as_uri()

    def find_beside(self, uri: str) -> Path | None:
        """Where the files of a run of ours lie beside the database today; None for an address that is not ours."""
        parts = path.parts[-4:] if (path := to_path(uri)) is not None else ()
        if self.database is None or len(parts) < 4 or (parts[0], parts[3]) != (FOLDER, "artifacts"):
            return None
        return self.database.parent.joinpath(*parts)

    def relocate(self) -> None:
        """Write into the database where it lies: MLflow stores absolute paths, and the folder may have been moved.

        New runs go there; of a run that exists the path is changed if its files are there.
        """
        if self.database is None:
            return
        folder = self.database.parent / FOLDER
        with closing(_connect(self.database)) as connection, connection:
            for number, uri in connection.execute(
                "SELECT experiment_id, artifact_location FROM experiments"
            ).fetchall():
                path = to_path(uri)
                if path is not None and path.parent.name == FOLDER and path.parent != folder:
                    place = (folder / path.name).as_uri()
                    connection.execute(
                        "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (place, number)
                    )
            start = f"{folder.as_uri()}/"
            elsewhere = "SELECT run_uuid, artifact_uri FROM runs WHERE substr(artifact_uri, 1, ?) <> ?"
            for run_id, uri in connection.execute(elsewhere, (len(start), start)).fetchall():
                found = self.find_beside(uri)
                if found is not None and found.exists():
                    connection.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (found.as_uri(), run_id))

    def check(self) -> None:
        """Find out in seconds what MLflow would find out in minutes of retries.

        Raises:
            StoreError: the database is damaged, locked or not readable, or the server does not answer.
        """
        try:
            if self.database is not None:
                _read_schema(self.database)
            elif self.is_server:
                _ask_server(self.given)
        except (OSError, sqlite3.Error) as error:
            raise self.make_error(error) from error

    def create(self) -> None:
        """Create an SQLite database at once or not at all; does nothing where one exists.

        Two processes that let MLflow create one database break it, and so does an interruption: each makes its own
        under another name, and the first to finish gives it the right one.
        """
        if self.database is None or self.database.exists():
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        self.database.parent.mkdir(parents=True, exist_ok=True)
        draft = self.database.with_name(f".{self.database.name}.{os.getpid()}")
        try:
            folder = (self.database.parent / FOLDER).as_uri()
            SqlAlchemyStore(f"sqlite:///{draft}", folder).engine.dispose()  # type: ignore[no-untyped-call]
            with suppress(FileExistsError):
                self.database.hardlink_to(draft)
        finally:
            draft.unlink(missing_ok=True)

    def make_error(self, error: BaseException) -> StoreError:
        """The one message for whatever went wrong: the first line of its first cause."""
        while error.__cause__ is not None:
            error = error.__cause__
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        return StoreError(f"the tracking store {self.shown} cannot be used: {hide_credentials(reason)}")


def _read_schema(database: Path) -> None:
    if database.is_dir():
        raise IsADirectoryError("it is a folder")
    with closing(_connect(database)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and "experiments" not in tables:
            raise sqlite3.DatabaseError("it is the database of another program")


def _connect(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=SECONDS_TO_ANSWER)


def to_path(uri: str) -> Path | None:
    """The path of a folder of this machine; None for every other address."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def _ask_server(address: str) -> None:
    """Raises OSError where nobody answers; of a proxy the environment decides, as for MLflow's own requests."""
    place, login = split_credentials(address)
    try:
        question = urllib.request.Request(f"{place.rstrip('/')}/health", headers=login)
        with urllib.request.urlopen(question, timeout=SECONDS_TO_ANSWER):
            pass
    except urllib.error.HTTPError as error:
        if error.code >= 500:  # whoever merely refuses is there; MLflow itself brings credentials
            raise
