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
"""What Optuna raises where complete lines of a journal contradict each other."""


def find_storage(tracking_uri: str, stated: str | None = None) -> str:
    """The storage that a user states, or the journal beside the tracking store; a path, or a URL of Optuna's.

    `optuna-dashboard` takes it as it is. A tracking store that is no file of this machine leaves the journal to the
    root of what the user works on.
    """
    if stated is not None:
        return stated if "://" in stated else str(Path(stated).absolute())
    return str(Store(tracking_uri).journal)


def open_storage(storage: str) -> "BaseStorage":
    """Open what `find_storage` names; a journal is created where there is none, and its end repaired after a crash.

    Raises:
        StoreError: it cannot be opened, or is something else.
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
    """The one message for whatever went wrong with a storage."""
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return StoreError(f"the study's storage {show_storage(storage)} cannot be used: {hide_credentials(reason)}")


def show_storage(storage: str) -> str:
    """The storage without a password."""
    return hide_credentials(storage)
