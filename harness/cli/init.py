"""`harness init`: copies the shipped experiments and recipes into a new project."""

import argparse
import shlex
from pathlib import Path

from harness.cli.options import list_files
from harness.cli.verb import echo

HELP = "copy the shipped experiments and recipes; overwrites nothing"
EXAMPLE = "harness init my-study"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the target folder."""
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(), metavar="DIR", help="default: the working directory"
    )


def execute(options: argparse.Namespace) -> int:
    """Copy the files, and print their paths and the next command."""
    from harness.commands.init import copy_experiments

    files = list(copy_experiments(options.folder.absolute()))
    written = [path for path, is_new in files if is_new]
    if written:
        echo(list_files(written))
    if len(written) < len(files):
        echo(f"not overwritten: {len(files) - len(written)} of {len(files)} files")
    enter = "" if options.folder.absolute() == Path.cwd() else f"cd {shlex.quote(str(options.folder))} && "
    echo(f"\nnext: {enter}harness run experiments/table1.yaml --recipe smoke")
    return 0
