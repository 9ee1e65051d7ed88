"""`harness list`: lists experiments, recipes, presets, operators and data."""

import argparse

from harness.cli.options import add_data, add_json, add_plugin, print_json
from harness.cli.verb import echo

HELP = "list experiments, searches, recipes, presets, operators and data"
EXAMPLE = "harness list presets"

SECTIONS = ("experiments", "searches", "recipes", "presets", "operators", "data")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the section to list."""
    parser.add_argument("section", nargs="?", choices=SECTIONS, help="one of them (default: all)")
    add_data(parser)
    add_plugin(parser)
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    """Print a line for each entry."""
    from harness.commands.listing import describe_listing, make_listing

    listing = make_listing([options.section] if options.section else SECTIONS, data_dir=options.data)
    if options.json:
        print_json(listing)
    else:
        echo(describe_listing(listing))
    return 0
