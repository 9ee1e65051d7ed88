"""Options that several verbs share, and how they are parsed."""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.verb import echo
from harness.errors import DataError
from harness.plan import Plan, make_plan
from harness.project import find_root
from harness.reading import load_spec
from paradigms.facts import shorten

MAX_DIGITS = 9
"""Of a count on the command line."""

if TYPE_CHECKING:
    from harness.tracking import Tracker


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """An experiment, its seeds and its store."""
    add_spec(parser)
    parser.add_argument("--seeds", type=at_least_one, metavar="N", help="replicates of each row")
    add_store(parser)


def add_store(parser: argparse.ArgumentParser) -> None:
    """Where runs are remembered."""
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow's store (default: mlflow.db in the checkout)")


def add_rows(parser: argparse.ArgumentParser) -> None:
    """Some rows of an experiment."""
    parser.add_argument(
        "--rows",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME,...",
        help="these rows alone; a name may have commas itself (default: all)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """For scripts."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead, for scripts")


def add_results(parser: argparse.ArgumentParser) -> None:
    """Where tables go."""
    parser.add_argument("--results", type=Path, metavar="DIR", help="where tables go (default: results/)")


def add_spec(parser: argparse.ArgumentParser) -> None:
    """An experiment, its recipe, its data."""
    parser.add_argument("path", type=Path, metavar="PATH", help="an experiment's file, or a shipped one's name: table1")
    parser.add_argument("--recipe", metavar="NAME", help="data, sizes and schedule, instead of the file's own recipe")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="replace values of the experiment or recipe",
    )
    add_data(parser)
    add_plugin(parser)


def add_plugin(parser: argparse.ArgumentParser) -> None:
    """Levels and datasets of one's own; `harness.cli.main` loads them before a verb reads anything."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE|FILE",
        help="a module or file with levels or datasets of your own; may be given again; beside plugins of harness.yaml",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Where images are."""
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="where a dataset lies that does not ship with the package"
    )


def at_least_one(text: str) -> int:
    """A count; argparse tells what is wrong with anything else."""
    if not (text.isdecimal() and len(text) <= MAX_DIGITS and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {shorten(repr(text))}")
    return int(text)


def load_plan(options: argparse.Namespace) -> Plan:
    """Read the experiment, and say what it is before the slow imports begin."""
    spec = load_spec(options.path, recipe=options.recipe, seeds=options.seeds, overrides=options.set)
    plan = make_plan(spec)
    overrides = f" with {', '.join(spec.overrides)}" if spec.overrides else ""
    head = f"{spec.name}: {spec.title}\nrecipe {spec.recipe.name}{overrides}: {spec.recipe.summary}\n"
    if not getattr(options, "json", False):
        echo(head, flush=True)
    return plan


def print_json(value: object) -> None:
    """One document, readable; what is no number in JSON (NaN, infinity) is null."""
    echo(json.dumps(_to_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def _to_plain(value: object) -> object:
    """Of dataclasses, mappings and sequences what JSON has."""
    if is_dataclass(value):
        return _to_plain({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, Mapping):
        return {str(name): _to_plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def find_store(options: argparse.Namespace) -> str:
    """The URI of MLflow's store."""
    from harness.tracking import default_tracking_uri

    return options.tracking_uri or default_tracking_uri()


def find_results(options: argparse.Namespace) -> Path:
    """The folder that tables go to."""
    return options.results or find_root() / "results"


def find_digests(plan: Plan, options: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Those of today; without the data nothing can be told to be stale."""
    from harness.execution import ledger

    try:
        return ledger.find_digests(plan, data_dir=options.data)
    except DataError as error:
        echo(f"harness: {error}; what is stale is not known", file=sys.stderr)
        return {}


def warn_of_stale_sources(plan: Plan, tracker: "Tracker", options: argparse.Namespace) -> None:
    """Say which rows start from weights that older code or data has trained."""
    from harness.execution.source import list_stale

    for line in list_stale(plan, tracker, data_dir=options.data):
        echo(f"harness: {line}", file=sys.stderr)


def list_files(files: Sequence[Path]) -> str:
    """A line for each file that was written."""
    return "\n".join(f"written: {_shorten(path)}" for path in files)


def _shorten(path: Path) -> Path:
    """Seen from the working directory where it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
