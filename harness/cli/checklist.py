"""`harness checklist`: prints paragraphs on statistical significance and compute, from the runs of a table."""

import argparse

from harness.cli.options import add_experiment, add_results, find_digests, find_results, find_store
from harness.cli.verb import echo
from harness.plan import make_plan
from harness.reading import load_spec

HELP = "the paragraphs on statistical significance and compute that venues ask for"
EXAMPLE = "harness checklist experiments/table1.yaml --format latex"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an experiment, the places of its runs, and the format."""
    add_experiment(parser)
    add_results(parser)
    parser.add_argument("--format", choices=("markdown", "latex"), default="markdown", help="default: markdown")


def execute(options: argparse.Namespace) -> int:
    """Print only the paragraphs, so that the output can be redirected to a file."""
    spec = load_spec(options.path, recipe=options.recipe, seeds=options.seeds, overrides=options.set)
    plan = make_plan(spec)
    from harness.commands.checklist import FORMATS, read_paragraphs
    from harness.tracking import MlflowTracker

    tracker = MlflowTracker(find_store(options))
    paragraphs = read_paragraphs(plan, tracker, find_digests(plan, options), find_results(options))
    echo(FORMATS[options.format](paragraphs))
    return 0
