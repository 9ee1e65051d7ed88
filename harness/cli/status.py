"""`harness status`: shows the progress of every experiment."""

import argparse
from pathlib import Path

from harness.cli.options import (
    add_data,
    add_json,
    add_plugin,
    add_results,
    add_store,
    find_results,
    find_store,
    print_json,
)
from harness.cli.verb import echo

HELP = "every experiment: done, running, failed, stale, open, time left"
EXAMPLE = "harness status --recipe laptop"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add experiments, a recipe, and the places of their runs."""
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="experiments' files or names (default: the files in `experiments`, and shipped ones with runs)",
    )
    parser.add_argument("--recipe", metavar="NAME", help="instead of each experiment's own")
    parser.add_argument("--shipped", action="store_true", help="shipped experiments too, run or not")
    parser.add_argument("--all", action="store_true", help="all experiments in the store too; slow if it is large")
    add_results(parser)
    add_data(parser)
    add_store(parser)
    add_plugin(parser)
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    """Print one line per experiment."""
    from harness.commands.status import describe_status, list_uncounted, read_status
    from harness.tracking import MlflowTracker

    tracker = MlflowTracker(find_store(options))
    statuses = read_status(
        tracker,
        options.paths,
        results=find_results(options),
        recipe=options.recipe,
        data_dir=options.data,
        shipped=options.shipped,
        everything=options.all,
    )
    uncounted = [] if options.paths or options.all else list_uncounted(tracker, statuses)
    if options.json:
        experiments = [status.to_plain() for status in statuses]
        print_json({"store": tracker.store.shown, "experiments": experiments, "uncounted": uncounted})
    else:
        echo(f"store: {tracker.store.shown}{' (nothing yet)' if tracker.store.is_new else ''}\n")
        echo(describe_status(statuses, uncounted))
    return 0
