"""`harness claims`: lists the paper's claims with verdict and evidence."""

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

HELP = "the paper's claims: verdict and evidence of what is stored; trains nothing"
EXAMPLE = "harness claims experiments/table1.yaml --recipe laptop"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add experiments, a recipe, and the places of their runs."""
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="experiments' files or names (default: all shipped)"
    )
    parser.add_argument("--recipe", metavar="NAME", help="instead of each experiment's own")
    add_data(parser)
    add_store(parser)
    add_results(parser)
    add_plugin(parser)
    add_json(parser)
    parser.add_argument("--markdown", action="store_true", help="print them as a page in Markdown")


def execute(options: argparse.Namespace) -> int:
    """Print one line per claim."""
    from harness.commands.claims import describe_claims, list_claims, to_page
    from harness.tracking import MlflowTracker

    tracker = MlflowTracker(find_store(options))
    claims = list_claims(
        tracker, options.paths, results=find_results(options), recipe=options.recipe, data_dir=options.data
    )
    if options.json:
        print_json({"store": tracker.store.shown, "claims": claims})
    elif options.markdown:
        echo(to_page(claims))
    else:
        echo(describe_claims(claims))
    return 0
