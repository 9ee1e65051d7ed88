"""`harness search`: runs an Optuna study whose trials are runs, then tests its winner."""

import argparse
import sys
from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING

from harness.cli.options import (
    add_engine,
    add_experiment,
    add_results,
    at_least_one,
    find_results,
    find_store,
    list_files,
    make_engine,
    warn_of_stale_sources,
)
from harness.cli.run import show_events, take_last, to_exit_code
from harness.cli.verb import INTERRUPTED, echo, interrupt_on_sigterm
from harness.data import fetch_data
from harness.plan import make_plan

if TYPE_CHECKING:
    from harness.commands.search import Count
    from harness.search import SearchEnded, SearchEvent, SearchSpec

HELP = "search fields of operator or recipe, then retrain the winner beside other rows"
EXAMPLE = "harness search experiments/ghost_head_search.yaml --trials 40"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a search and the options of its execution."""
    add_experiment(parser)
    add_results(parser)
    parser.add_argument("--trials", type=at_least_one, metavar="N", help="of the whole study (default: the file's)")
    add_engine(parser, unit="trials")
    parser.add_argument("--timeout", type=_above_zero, metavar="MIN", help="minutes after which no trial is started")
    parser.add_argument("--storage", metavar="URL", help="Optuna's (default: optuna.journal beside MLflow's store)")
    parser.add_argument(
        "--write-preset", action="store_true", help="print the best trial so far as a row to paste; train nothing"
    )


def execute(options: argparse.Namespace) -> int:
    """Search, compare and print; 1 if a run failed by a bug."""
    interrupt_on_sigterm()
    from harness.search import find_storage, load_search

    spec = load_search(options.path, recipe=options.recipe, seeds=options.seeds, overrides=options.set)
    storage = find_storage(find_store(options), options.storage)
    if options.write_preset:
        from harness.commands.search import write_preset

        echo(write_preset(spec, storage))
        return 0
    echo(f"{spec.name}: {spec.title}\nrecipe {spec.recipe.name}: {spec.recipe.summary}\n", flush=True)
    return _search(spec if options.trials is None else spec.with_trials(options.trials), storage, options)


def _search(spec: "SearchSpec", storage: str, options: argparse.Namespace) -> int:
    """Run the missing trials; after the last one, the winner is measured on the test set."""
    from harness.commands.search import Count
    from harness.search.run import SearchOptions, plan_comparison, run_comparison, run_search
    from harness.tasks import find_measure
    from harness.tracking import MlflowTracker

    for step in fetch_data(spec.recipe.data, options.data):
        echo(step, flush=True)
    tracker = MlflowTracker(find_store(options))
    warn_of_stale_sources(make_plan(spec.to_experiment()), tracker, options)
    engine = make_engine(options, spec.recipe)
    settings = SearchOptions(storage, find_results(options), options.data, options.timeout, options.command)
    count = Count(measure=find_measure(spec))
    try:
        ended = _show_search_events(run_search(spec, tracker=tracker, engine=engine, options=settings), count)
    except KeyboardInterrupt:
        echo(f"\ninterrupted: {count.describe()}; run the same command to continue", file=sys.stderr)
        return INTERRUPTED
    echo(f"\n{count.describe()}\n", flush=True)
    for result in count.failed:
        echo(f"trial {result.number} {result.reason}; more in error.txt or output.txt of MLflow run {result.run_id}")
    if not ended.is_complete or ended.best is None:
        why = (
            "no trial was measured"
            if ended.is_complete
            else "not all trials have ended; run the same command to continue"
        )
        echo(f"{list_files(ended.files)}\n\nno winner is retrained yet: {why}")
        return to_exit_code(count.failed, count.interrupted)
    plan = plan_comparison(spec, ended.best)
    echo(f"the winner, trial {ended.best.number}, beside the other rows on the test set", flush=True)
    code = show_events(plan, run_comparison(spec, plan, tracker=tracker, engine=engine, options=settings))
    return code or to_exit_code(count.failed, count.interrupted)


def _show_search_events(events: "Generator[SearchEvent, None, None]", count: "Count") -> "SearchEnded":
    """Show the events of a search; returns the last one."""
    from harness.commands.search import open_search
    from harness.search import SearchEnded

    with open_search(sys.stdout, count.measure) as show, closing(events):
        try:
            for event in events:
                count.add(event)
                show(event)
        except KeyboardInterrupt:
            for event in take_last(events):
                count.add(event)
            raise
    assert isinstance(event, SearchEnded)
    return event


def _above_zero(text: str) -> float:
    """Parse a number of minutes above zero."""
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return minutes
