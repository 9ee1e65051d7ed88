"""Searches: Optuna studies whose trials are runs. Optuna is imported when a study is opened."""

from harness.search.events import SearchEnded, SearchEvent, StudyOpened, TrialEnded, TrialEpochEnded, TrialStarted
from harness.search.spec import SearchSpec, load_search
from harness.search.storage import find_storage

__all__ = [
    "SearchEnded",
    "SearchEvent",
    "SearchSpec",
    "StudyOpened",
    "TrialEnded",
    "TrialEpochEnded",
    "TrialStarted",
    "find_storage",
    "load_search",
]
