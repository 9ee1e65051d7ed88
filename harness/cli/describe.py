"""`harness describe`: describes an operator or a row."""

import argparse

from harness.cli.options import add_plugin
from harness.cli.verb import echo

HELP = "an operator's equation, source, parts and cost"
EXAMPLE = "harness describe elsa"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a preset, or a row of an experiment."""
    parser.add_argument("name", metavar="PRESET|PATH", help="a preset, or the experiment of a row")
    parser.add_argument("row", nargs="?", metavar="ROW", help="a row of the experiment")
    parser.add_argument("--recipe", metavar="NAME", help="sizes; default: the experiment's, imagenet for a preset")
    add_plugin(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the description."""
    from harness.commands.describe import describe_row, find_described

    echo(describe_row(*find_described(options.name, options.row, recipe=options.recipe)))
    return 0
