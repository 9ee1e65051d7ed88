"""`harness rehearse`: runs every cell for a few steps, to find errors and to forecast time and memory."""

import argparse
import sys
from contextlib import closing

from harness.cli.options import (
    add_engine,
    add_experiment,
    add_json,
    add_results,
    add_rows,
    find_results,
    find_store,
    load_plan,
    make_engine,
    print_json,
)
from harness.cli.verb import FAILED, INTERRUPTED, echo
from harness.data import fetch_data

HELP = "a few steps of every cell: errors, time and memory before a long run"
EXAMPLE = "harness rehearse experiments/table1.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an experiment, and the folder of its tables and committed runs."""
    add_experiment(parser)
    add_results(parser)
    add_rows(parser)
    add_json(parser)
    add_engine(parser, unit="rehearsals")


def execute(options: argparse.Namespace) -> int:
    """Rehearse and print the report; 1 if a rehearsal failed."""
    plan = load_plan(options)
    from harness.commands.progress import open_progress
    from harness.commands.rehearse import RehearsalReport
    from harness.execution import rehearse_plan
    from harness.tasks import find_measure
    from harness.tracking import MlflowTracker

    for step in fetch_data(plan.spec.recipe.data, options.data):
        echo(step, file=sys.stderr, flush=True)
    engine = make_engine(options, plan.spec.recipe)
    tracker, report = MlflowTracker(find_store(options)), RehearsalReport(plan)
    rehearsed = rehearse_plan(
        plan,
        tracker=tracker,
        engine=engine,
        results=find_results(options),
        data_dir=options.data,
        rows=options.rows,
    )
    stream = sys.stderr if options.json else sys.stdout
    try:
        with open_progress(stream, find_measure(plan.spec)) as show, closing(rehearsed) as events:
            for event in events:
                report.add(event)
                show(event)
    except KeyboardInterrupt:
        echo("\ninterrupted; run the same command to rehearse the other cells", file=sys.stderr)
        return INTERRUPTED
    if options.json:
        print_json(report.to_plain())
    else:
        echo(f"\n{report.describe()}")
    return FAILED if report.failed else 0
