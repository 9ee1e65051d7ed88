"""Checks of the store of runs, the journal of searches and the images of each recipe."""

from collections.abc import Iterator
from pathlib import Path

from harness.commands.doctor.finding import Finding, Level
from harness.data import Description, describe_data
from harness.errors import StoreError
from harness.provenance import ROOT
from harness.reading import list_recipes, load_recipe
from harness.search.journal import find_incomplete_end
from harness.text import count_noun
from harness.tracking import MlflowTracker
from harness.tracking.store import Store


def check_store(tracking_uri: str) -> Iterator[Finding]:
    """Check that the store exists and can be read, that its schema is up to date, and that no dead runs are open."""
    try:
        tracker = MlflowTracker(tracking_uri)
        runs = tracker.find_runs()
    except StoreError as error:
        advice = (
            "another one: --tracking-uri URI or MLFLOW_TRACKING_URI; an older one: `mlflow db upgrade URI`, on a copy"
        )
        yield Finding(Level.PROBLEM, "store", str(error), advice)
        return
    if tracker.store.is_new:
        yield Finding(
            Level.OK, "store", f"{tracker.store.shown} does not exist yet; the first `harness run` creates it"
        )
        return
    live = sum(run.is_live for run in runs)
    yield Finding(Level.OK, "store", f"{tracker.store.shown}: {count_noun(len(runs), 'run')}, {live} of them running")
    left = sum(run.record is None and not run.is_live for run in runs)
    if left:
        found = f"{count_noun(left, 'run')} left open by processes that have ended"
        yield Finding(Level.WARNING, "store", found, "the next `harness run` closes them and trains them again")


def check_searches(tracking_uri: str) -> Iterator[Finding]:
    """Check that the journal of the searches can be read; no finding without a search."""
    try:
        journal = Store(tracking_uri).journal
        if not journal.exists():
            return
        end = find_incomplete_end(journal)
    except (StoreError, OSError) as error:
        yield Finding(Level.PROBLEM, "searches", str(error))
        return
    if end is None:
        yield Finding(Level.OK, "searches", str(journal))
    else:
        found = f"{journal}: the last line is incomplete, as after a power loss"
        yield Finding(Level.WARNING, "searches", found, "the next `harness search` removes it and continues its trial")


def check_data(data_dir: Path | None) -> Iterator[Finding]:
    """Check the images of each recipe; if they do not ship with the package, missing images are only a warning."""
    for name in list_recipes():
        data = load_recipe(name).data
        found = describe_data(data.name, data_dir, spec=data)
        yield _judge(name, found)


def _judge(recipe: str, found: Description) -> Finding:
    topic = f"data of {recipe}"
    if found.usable:
        return Finding(Level.OK, topic, f"{found.name}: {found.state}")
    ships = bool(found.location) and Path(found.location).is_relative_to(ROOT / "harness")
    if ships:
        return Finding(
            Level.PROBLEM, topic, f"{found.name}: {found.state}", "it ships with the package: install it again"
        )
    return Finding(Level.WARNING, topic, f"{found.name}: {found.state}", f"needed by --recipe {recipe} alone")
