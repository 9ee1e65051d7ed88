"""`harness plan`: what an experiment would train."""

import argparse

from harness.cli.options import add_experiment, add_json, find_digests, find_store, load_plan, print_json
from harness.cli.verb import echo

HELP = "every cell with its cost, and what is done, stale or to do"
EXAMPLE = "harness plan experiments/table1.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An experiment."""
    add_experiment(parser)
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the plan held against the store."""
    plan = load_plan(options)
    from harness.commands.overview import describe_plan, to_plain
    from harness.run.ledger import read_ledger
    from harness.tracking import MlflowTracker

    entries = read_ledger(plan, MlflowTracker(find_store(options)), find_digests(plan, options))
    if options.json:
        print_json(to_plain(plan, entries))
    else:
        echo(describe_plan(plan, entries))
    return 0
