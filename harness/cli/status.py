"""`harness status`: shows the progress of every experiment."""

import argparse
from pathlib import Path

from harness.cli.options import add_data, add_json, add_plugin, add_store, find_store, print_json
from harness.cli.verb import echo

HELP = "every experiment: done, running, failed, stale, open, time left"
EXAMPLE = "harness status --recipe laptop"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Experiments, a recipe, a store."""
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="experiments' files or names (default: the files in `experiments`, and all others in the store)",
    )
    parser.add_argument("--recipe", metavar="NAME", help="instead of each experiment's own")
    parser.add_argument("--shipped", action="store_true", help="shipped experiments too, run or not")
    add_data(parser)
    add_store(parser)
    add_plugin(parser)
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    """Print a line an experiment."""
    from harness.commands.status import describe_status, read_status
    from harness.tracking import MlflowTracker

    tracker = MlflowTracker(find_store(options))
    statuses = read_status(
        tracker, options.paths, recipe=options.recipe, data_dir=options.data, shipped=options.shipped
    )
    if options.json:
        print_json({"store": tracker.store.shown, "experiments": [status.to_plain() for status in statuses]})
    else:
        echo(f"store: {tracker.store.shown}{' (nothing yet)' if tracker.store.is_new else ''}\n")
        echo(describe_status(statuses))
    return 0
