"""Reads and writes the artifact files of runs.

Beside a database of ours they are found from the database: MLflow stores absolute paths, which are wrong as soon as the
folder is moved, copied or mounted elsewhere.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.files import temporary_folder
from harness.tracking.patience import Patience, Patient
from harness.tracking.store import Store, to_path
from harness.tracking.translation import read_object

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

CONFIG = "config.json"

PREDICTIONS = "predictions.npz"
"""What a run has kept per test image."""


class Artifacts:
    """The files of all runs of one store; without `patience` a server is asked once."""

    def __init__(self, client: "MlflowClient", store: Store, patience: Patience | None = None) -> None:
        self._client = client
        self._store = store
        self._patience = patience

    def locate(self, run: "Run") -> str:
        """The folder of a run's files on this machine, or their address elsewhere."""
        stored = to_path(run.info.artifact_uri)
        if stored is None:
            return str(run.info.artifact_uri)
        moved = self._store.find_beside(run.info.artifact_uri)
        return str(stored if moved is None or (stored.exists() and not moved.exists()) else moved)

    def list_names(self, run: "Run") -> tuple[str, ...]:
        """The names of a run's files."""
        return tuple(file.path for file in self._open(run).list_artifacts())

    def log(self, run_id: str, path: Path) -> None:
        """Keep a copy of a file under its own name."""
        self._open(self._client.get_run(run_id)).log_artifact(str(path))

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Keep a text as the file `name`."""
        with temporary_folder() as folder:
            path = folder / name
            path.write_text(text, encoding="utf-8")
            self.log(run_id, path)

    def fetch(self, run: "Run", name: str, folder: Path) -> Path:
        """Copy a file of a run into a folder."""
        return Path(self._open(run).download_artifacts(name, str(folder)))

    def read_config(self, run: "Run") -> dict[str, Any]:
        """The resolved config of a run; empty where its file is gone or damaged."""
        if CONFIG not in self.list_names(run):
            return {}
        with temporary_folder() as folder:
            return read_object(self.fetch(run, CONFIG, folder).read_text(encoding="utf-8", errors="replace"))

    def _open(self, run: "Run") -> "ArtifactRepository":
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        place = self.locate(run)
        uri = Path(place).as_uri() if Path(place).is_absolute() else place
        found = get_artifact_repository(uri, tracking_uri=self._store.uri)
        return found if self._patience is None else cast("ArtifactRepository", Patient(found, self._patience))
