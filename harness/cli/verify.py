"""`harness verify`: compares committed tables with the runs beside them."""

import argparse
from pathlib import Path

from harness.cli.options import add_plugin, add_results, find_results
from harness.cli.verb import FAILED, echo

HELP = "whether every number of committed tables follows from the runs beside them"
EXAMPLE = "harness verify results/laptop"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the tables to verify."""
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="folders or files of tables, record files, or LaTeX documents with such tables (default: all results)",
    )
    add_results(parser)
    add_plugin(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the result for each table; 1 if a number differs."""
    from harness.commands.verify import verify

    results, failed = find_results(options), False
    for verification in verify(options.paths or [results], results):
        echo(verification.describe(), flush=True)
        failed = failed or bool(verification.differences)
    return FAILED if failed else 0
