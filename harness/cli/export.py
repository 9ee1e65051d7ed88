"""`harness export`: writes the model of a run for timm."""

import argparse
import sys
from pathlib import Path

from harness.cli.options import add_data, add_plugin, find_store, list_files
from harness.cli.verb import echo

HELP = "the model of a run as files for timm.create_model"
EXAMPLE = "harness export 580307b18085499abd079f25bb7319b7 --output my-model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a run and the folder of the model."""
    parser.add_argument("run", metavar="RUN", help="the id of an MLflow run")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: a folder of the run's id")
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow's store (default: mlflow.db in the checkout)")
    add_data(parser)
    add_plugin(parser)


def execute(options: argparse.Namespace) -> int:
    """Write the files and print their paths."""
    from harness.commands.export import export_run
    from harness.tracking import MlflowTracker

    folder = (options.output or Path(options.run)).absolute()
    exported = export_run(MlflowTracker(find_store(options)), options.run, folder, options.data)
    echo(list_files(exported.files))
    for warning in exported.warnings:
        echo(f"harness: {warning}", file=sys.stderr)
    return 0
