"""`harness show`: shows everything about one run or one cell."""

import argparse

from harness.cli.options import add_data, add_json, add_plugin, add_store, find_store, print_json
from harness.cli.verb import echo

HELP = "all about one run or one cell: outcome, metrics, curve, config, origin, files"
EXAMPLE = "harness show 0b61aa"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an id and a store."""
    parser.add_argument("id", metavar="RUN|CELL", help="the id of an MLflow run or of a cell, or its first characters")
    add_data(parser)
    add_store(parser)
    add_plugin(parser)
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the run or the cell."""
    from harness.commands.portrait import describe_shown
    from harness.commands.show import find_shown
    from harness.tracking import MlflowTracker

    tracker = MlflowTracker(find_store(options))
    shown = find_shown(tracker, options.id, data_dir=options.data)
    if options.json:
        print_json(shown.to_plain())
    else:
        echo(describe_shown(shown, store=tracker.store.shown))
    return 0
