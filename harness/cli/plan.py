"""`harness plan`: shows what an experiment would train."""

import argparse

from harness.cli.options import (
    add_experiment,
    add_json,
    add_rows,
    find_digests,
    find_store,
    load_plan,
    print_json,
    warn_of_stale_sources,
)
from harness.cli.verb import echo
from harness.plan import select_rows

HELP = "every cell with its cost, and what is done, stale or to do"
EXAMPLE = "harness plan experiments/table1.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An experiment."""
    add_experiment(parser)
    add_rows(parser)
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the plan held against the store; raise where `harness run` would refuse it."""
    plan = select_rows(load_plan(options), options.rows)
    from harness.commands.overview import describe_plan, to_plain
    from harness.engines import ENGINES
    from harness.execution.ledger import check_plan, read_ledger
    from harness.execution.rehearsals import list_stored
    from harness.execution.source import check_fit
    from harness.provenance import collect
    from harness.tracking import MlflowTracker

    digests = find_digests(plan, options)
    if digests:  # without data only what does not depend on it can be told
        check_plan(plan, data_dir=options.data)
    check_fit(plan)
    tracker = MlflowTracker(find_store(options))
    warn_of_stale_sources(plan, tracker, options)
    entries = read_ledger(plan, tracker, digests)
    threads = ENGINES["local"](workers=plan.spec.recipe.workers).threads
    rehearsals = list_stored(plan, tracker, digests, collect(threads=threads))
    if options.json:
        print_json(to_plain(plan, entries, rehearsals))
    else:
        echo(describe_plan(plan, entries, rehearsals))
    return 0
