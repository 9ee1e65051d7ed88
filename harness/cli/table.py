"""`harness table`: writes the table again from the runs in the store."""

import argparse

from harness.cli.options import (
    add_experiment,
    add_json,
    add_results,
    add_rows,
    find_digests,
    find_results,
    find_store,
    list_files,
    load_plan,
    print_json,
)
from harness.cli.verb import echo
from harness.plan import select_rows
from harness.text import count_noun

HELP = "the table of what is stored; trains nothing"
EXAMPLE = "harness table experiments/table1.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an experiment and the folder of its table."""
    add_experiment(parser)
    add_results(parser)
    add_rows(parser)
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the table and write its files."""
    plan = load_plan(options)
    shown = {row.name for row in select_rows(plan, options.rows).rows}
    from harness.execution import write_results
    from harness.execution.plan import check_results
    from harness.report.document import to_plain
    from harness.report.files import find_folder
    from harness.report.terminal import to_text
    from harness.tracking import MlflowTracker

    check_results(find_folder(plan.spec, find_results(options)), plan.spec.name)
    tracker = MlflowTracker(find_store(options))
    written = write_results(plan, tracker, find_digests(plan, options), find_results(options))
    results = written.results.select(shown) if options.rows else written.results
    if options.json:
        print_json(to_plain(results, written.files))
        return 0
    echo(f"{to_text(results)}\n\n{list_files(written.files)}")
    if results.undecided:
        rows = count_noun(len(results.undecided), "row")
        echo(f"code has changed since {rows} were trained: `harness rehearse {options.path}` tells whether they stand")
    return 0
