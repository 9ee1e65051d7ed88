"""`harness data`: lists the datasets that are available, and where."""

import argparse
from pathlib import Path

from harness.cli.options import add_data, add_plugin
from harness.cli.verb import echo
from harness.data import DATASETS, describe_data
from harness.plan import make_plan
from harness.reading import load_spec

HELP = "list datasets and the folders that they are in"
EXAMPLE = "harness data fashion_mnist"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an experiment or a dataset."""
    parser.add_argument("target", nargs="?", metavar="PATH|NAME", help="an experiment or a dataset (default: all)")
    parser.add_argument("--recipe", metavar="NAME", help="instead of the experiment's own")
    add_data(parser)
    add_plugin(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the datasets; raise an error if the data of an experiment are missing."""
    from harness.commands.inventory import describe_inventory

    if options.target is None or options.target in DATASETS:
        names = DATASETS if options.target is None else [options.target]
        echo(describe_inventory(describe_data(name, options.data) for name in names))
        return 0
    plan = make_plan(load_spec(Path(options.target), recipe=options.recipe))
    recipe = plan.spec.recipe
    echo(describe_inventory([describe_data(recipe.data.name, options.data, spec=recipe.data)]))
    from harness.execution.ledger import check_plan

    check_plan(plan, data_dir=options.data)
    return 0
