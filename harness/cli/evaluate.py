"""`harness evaluate`: scores a row with weights from a file."""

import argparse
from pathlib import Path

from harness.cli.options import add_spec, load_plan
from harness.cli.verb import echo

HELP = "the scores of a row with weights from a file"
EXAMPLE = "harness evaluate experiments/table1.yaml Swin-T --weights weights.pt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a row of an experiment and its weights."""
    add_spec(parser)
    parser.add_argument("row", metavar="ROW", help="a row of the experiment, or one of its floors")
    parser.add_argument(
        "--weights",
        type=Path,
        required=True,
        metavar="FILE",
        help="weights of a run (weights.pt), or a checkpoint of ELSA-Swin, Swin, VOLO or DeiT (torch, safetensors)",
    )
    parser.set_defaults(seeds=None)


def execute(options: argparse.Namespace) -> int:
    """Evaluate the row and print its scores."""
    plan = load_plan(options)
    from harness.commands.evaluate import evaluate_row

    echo(evaluate_row(plan, options.row, options.weights, options.data))
    return 0
