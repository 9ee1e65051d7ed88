"""`harness repro`: replays a run that diverged or failed."""

import argparse

from harness.cli.options import add_data, add_plugin, add_store, find_store
from harness.cli.verb import FAILED, echo

HELP = "replay a run that diverged or failed, up to that step; to check committed runs: harness run --reproduce"
EXAMPLE = "harness repro 580307b1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a run and its store."""
    parser.add_argument("run", metavar="RUN", help="the beginning of the id of an MLflow run")
    add_store(parser)
    add_data(parser)
    add_plugin(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the result of the replay; 1 if the run did not end as before."""
    from harness.commands.repro import replay_run
    from harness.tracking import MlflowTracker

    replay = replay_run(options.run, MlflowTracker(find_store(options)), data_dir=options.data)
    echo(replay.describe())
    return 0 if replay.is_same else FAILED
