"""`harness diff`: explains each number that differs between two tables."""

import argparse
from pathlib import Path

from harness.cli.options import add_json, add_plugin, print_json
from harness.cli.verb import FAILED, echo

HELP = "each number that differs between two tables, and why"
EXAMPLE = "harness diff old.jsonl results/laptop/runs/table1.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the tables to compare."""
    for name in ("old", "new"):
        parser.add_argument(name, type=Path, metavar=name.upper(), help="a record file, or a folder with record files")
    add_json(parser)
    add_plugin(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the differences; 1 if one has no explanation."""
    from harness.commands.diff import diff

    found = diff(options.old, options.new)
    if options.json:
        print_json(found.to_plain())
    else:
        echo(found.describe())
    return FAILED if found.has_unexplained else 0
