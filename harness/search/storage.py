"""Where studies are stored: Optuna's journal file, or any storage that Optuna opens."""

from pathlib import Path
from typing import TYPE_CHECKING

from harness.credentials import hide_credentials
from harness.errors import StoreError
from harness.search.journal import repair_journal
from harness.tracking.store import Store

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


REPLAY_ERRORS = (ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError)
"""Exceptions of Optuna if complete lines of a journal contradict each other."""


def find_storage(tracking_uri: str, stated: str | None = None) -> str:
    """The storage that a user states, or the journal beside the tracking store: a path or a URL of Optuna.

    `optuna-dashboard` accepts it. If the tracking store is not a file on this machine, the journal is in the root of
    the project.
    """
    if stated is not None:
        return stated if "://" in stated else str(Path(stated).absolute())
    return str(Store(tracking_uri).journal)


def open_storage(storage: str) -> "BaseStorage":
    """Open a storage of `find_storage`; a journal is created if necessary, and its end is repaired after a crash.

    Raises:
        StoreError: it cannot be opened or is not a storage of Optuna.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if "://" in storage:
            return optuna.storages.get_storage(storage)
        Path(storage).parent.mkdir(parents=True, exist_ok=True)
        repair_journal(Path(storage))
        return optuna.storages.JournalStorage(JournalFileBackend(storage))
    except (*REPLAY_ERRORS, OSError, ImportError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise make_store_error(storage, error) from error


def make_store_error(storage: str, error: BaseException) -> StoreError:
    """Make the error message for a failure of a storage."""
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return StoreError(f"the study's storage {show_storage(storage)} cannot be used: {hide_credentials(reason)}")


def show_storage(storage: str) -> str:
    """The storage without a password."""
    return hide_credentials(storage)
