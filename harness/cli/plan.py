"""`harness plan`: shows what an experiment would train."""

import argparse

from harness.cli.options import (
    add_experiment,
    add_json,
    add_results,
    add_rows,
    find_digests,
    find_results,
    find_store,
    get_seed_range,
    load_plan,
    print_json,
    warn_of_stale_sources,
)
from harness.cli.verb import echo
from harness.plan import select_rows, select_seeds

HELP = "every cell with its cost, and what is done, stale or to do"
EXAMPLE = "harness plan experiments/table1.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an experiment, a selection of rows and seeds, and the folder of tables."""
    add_experiment(parser, takes_part=True)
    add_rows(parser)
    add_results(parser)
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the plan compared with the store and the record file; raise an error if `harness run` would do so."""
    plan = select_seeds(select_rows(load_plan(options), options.rows), get_seed_range(options))
    from harness.commands.overview import describe_plan, to_plain
    from harness.engines.engine import THREADS
    from harness.execution.adoption import preview_ledger
    from harness.execution.ledger import check_plan
    from harness.execution.rehearsals import list_stored
    from harness.execution.source import check_fit
    from harness.provenance import collect
    from harness.shapes import find_shapes
    from harness.tracking import MlflowTracker

    digests = find_digests(plan, options)
    if digests:  # without the data, the checks of the data are skipped
        check_plan(plan, data_dir=options.data)
    check_fit(plan)
    tracker = MlflowTracker(find_store(options))
    warn_of_stale_sources(plan, tracker, options)
    entries = preview_ledger(plan, tracker, digests, find_results(options))
    rehearsals = list_stored(plan, tracker, digests, collect(threads=THREADS))
    codes = {cell_id: code for cell_id, (code, _) in digests.items()}
    shapes = find_shapes((row.cell for row in plan.rows), codes)
    if options.json:
        print_json(to_plain(plan, entries, rehearsals, shapes))
    else:
        echo(describe_plan(plan, entries, rehearsals, shapes))
    return 0
