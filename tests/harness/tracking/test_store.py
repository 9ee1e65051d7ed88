import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from harness.errors import StoreError
from harness.project import find_root
from harness.tracking import default_tracking_uri
from harness.tracking.store import Store


@pytest.fixture
def outside(monkeypatch, tmp_path) -> Path:
    """A working directory that belongs to no checkout."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_of_a_project_uses_the_projects_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    below = tmp_path / "experiments" / "recipes"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find_root() == below
    (tmp_path / "mlflow.db").touch()
    assert default_tracking_uri() == f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_the_default_store_is_at_the_root_of_the_checkout(outside, monkeypatch):
    (outside / "pyproject.toml").write_text('[project]\nname = "elsa-ablation"\n')
    (outside / "docs" / "deep").mkdir(parents=True)
    monkeypatch.chdir(outside / "docs" / "deep")
    assert default_tracking_uri() == f"sqlite:///{outside}/mlflow.db"


@pytest.mark.parametrize("content", ['[project]\nname = "other"\n', "not toml", ""], ids=["other", "broken", "empty"])
def test_outside_a_checkout_the_default_store_is_in_the_working_directory(outside, monkeypatch, content):
    (outside / "pyproject.toml").write_text(content)
    (outside / "folder").mkdir()
    monkeypatch.chdir(outside / "folder")
    assert default_tracking_uri() == f"sqlite:///{outside}/folder/mlflow.db"


def test_the_environment_chooses_the_default_store(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example.org")
    assert default_tracking_uri() == "http://tracking.example.org"


@pytest.mark.parametrize("uri", ["./mlruns", "mlruns", "file:///tmp/mlruns", "/tmp/mlruns", ""])
def test_a_plain_folder_is_refused(uri):
    with pytest.raises(StoreError, match="plain folders"):
        Store(uri)


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(uri):
    with pytest.raises(StoreError, match="in memory"):
        Store(uri)


def test_a_relative_database_stays_the_same_from_any_folder(outside, monkeypatch):
    store = Store("sqlite:///runs/mlflow.db")
    monkeypatch.chdir("/")
    assert store.uri == f"sqlite:///{outside}/runs/mlflow.db"
    assert store.artifact_location("table1") == (outside / "runs" / "mlartifacts" / "table1").as_uri()


def test_a_server_chooses_where_artifacts_go():
    assert Store("http://tracking.example.org").artifact_location("table1") is None


def test_a_password_is_not_shown():
    shown = str(Store("postgresql://me:secret@example.org/mlflow").make_error(OSError("no")))
    assert "secret" not in shown
    assert "me:***@example.org" in shown


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "mlflow.db"


def complaint(database: Path) -> str:
    with pytest.raises(StoreError) as caught:
        Store(f"sqlite:///{database}").check()
    return str(caught.value)


def test_a_damaged_database_is_one_clear_error(database):
    database.write_bytes(b"no database, " * 100)
    assert complaint(database) == f"the tracking store sqlite:///{database} cannot be used: file is not a database"


def test_a_locked_database_is_one_clear_error(database, monkeypatch):
    monkeypatch.setattr("harness.tracking.store.SECONDS_TO_ANSWER", 0.05)
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        assert "locked" in complaint(database)


def test_the_database_of_another_program_is_not_touched(database):
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE studies (id INTEGER)")
    assert "another program" in complaint(database)


def test_a_folder_in_the_place_of_a_database_is_one_clear_error(tmp_path):
    assert complaint(tmp_path).endswith("cannot be used: it is a folder")


def test_a_server_that_does_not_answer_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(StoreError, match=r"http://127\.0\.0\.1:9 cannot be used.*refused"):
        Store("http://127.0.0.1:9").check()


def test_creating_a_database_that_exists_changes_nothing(database):
    database.write_bytes(b"precious")
    Store(f"sqlite:///{database}").create()
    assert database.read_bytes() == b"precious"


def test_an_interrupted_creation_leaves_nothing(database, monkeypatch):
    def interrupt(uri: str, _folder: str) -> None:
        Path(uri.removeprefix("sqlite:///")).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Store(f"sqlite:///{database}").create()
    assert not list(database.parent.iterdir())


def test_the_second_of_two_creators_keeps_the_database_of_the_first(database, monkeypatch):
    class LateStore:
        def __init__(self, uri: str, _folder: str) -> None:
            Path(uri.removeprefix("sqlite:///")).write_bytes(b"second")
            database.write_bytes(b"first")
            self.engine = self

        def dispose(self) -> None:
            pass

    monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore", LateStore)
    Store(f"sqlite:///{database}").create()
    assert database.read_bytes() == b"first"
    assert list(database.parent.iterdir()) == [database]


WRITE_AND_DIE = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
connection.executemany("INSERT INTO experiment_tags VALUES (?, ?, 0)", [(str(n), "x" * 4000) for n in range(200)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_database_whose_writer_was_killed_is_repaired(ready_database: Path, tmp_path: Path) -> None:
    """What the writer left half done is rolled back by whoever opens the database next, if it may write."""
    database = tmp_path / "mlflow.db"
    database.write_bytes(ready_database.read_bytes())
    subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(database)], check=False)
    assert database.with_name("mlflow.db-journal").stat().st_size > 0
    Store(f"sqlite:///{database}").check()
    assert not database.with_name("mlflow.db-journal").exists()
