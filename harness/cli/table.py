"""`harness table`: the table of what the store has."""

import argparse

from harness.cli.options import (
    add_experiment,
    add_json,
    add_results,
    find_digests,
    find_results,
    find_store,
    list_files,
    load_plan,
    print_json,
)
from harness.cli.verb import echo

HELP = "the table of what is stored; trains nothing"
EXAMPLE = "harness table experiments/table1.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An experiment and where its table goes."""
    add_experiment(parser)
    add_results(parser)
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the table and write its files."""
    plan = load_plan(options)
    from harness.run import write_results
    from harness.table import to_plain, to_text
    from harness.tracking import MlflowTracker

    tracker = MlflowTracker(find_store(options))
    written = write_results(plan, tracker, find_digests(plan, options), find_results(options))
    if options.json:
        print_json(to_plain(written.frame, plan, written.findings, written.files))
        return 0
    echo(f"{to_text(written.frame, plan, written.findings)}\n\n{list_files(written.files)}")
    return 0
