"""Options that several verbs share, and their parsers."""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.cli.verb import echo
from harness.engines import DEFAULT, ENGINES
from harness.errors import DataError
from harness.plan import Plan, make_plan
from harness.project import find_root
from harness.reading import load_spec
from paradigms.facts import shorten

MAX_DIGITS = 9
"""The maximal number of digits of a count on the command line."""

if TYPE_CHECKING:
    from harness.engines.engine import Engine
    from harness.spec import RecipeSpec
    from harness.tracking import Tracker


def add_experiment(parser: argparse.ArgumentParser, *, takes_part: bool = False) -> None:
    """Add an experiment, its seeds and its store; a verb that takes a part of the plan takes a range of seeds, too."""
    add_spec(parser)
    number = "replicates of each row"
    if takes_part:
        more = "or the first and last to train of those that the plan has"
        parser.add_argument("--seeds", type=_count_or_range, metavar="N|A-B", help=f"{number}, {more}")
    else:
        parser.add_argument("--seeds", type=at_least_one, metavar="N", help=number)
    add_store(parser)


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the store."""
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow's store (default: mlflow.db in the checkout)")


def add_engine(parser: argparse.ArgumentParser, *, unit: str) -> None:
    """Add the engine, its options, and how many of some `unit` it executes at once."""
    parser.add_argument(
        "--workers",
        type=_count_or_auto,
        metavar="N|auto",
        help=f"{unit} at once, or as many as fit (default: the recipe's; on a cluster auto)",
    )
    parser.add_argument(
        "--engine", choices=ENGINES, default=DEFAULT, help=f"where {unit} execute (default: this machine)"
    )
    parser.add_argument(
        "--engine-options", type=Path, metavar="FILE", help="options of the engine, a YAML file (docs/scaling.md)"
    )


def add_rows(parser: argparse.ArgumentParser) -> None:
    """Add a selection of rows."""
    parser.add_argument(
        "--rows",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME,...",
        help="only these rows; a name may contain commas (default: all)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option for JSON output."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead, for scripts")


def add_results(parser: argparse.ArgumentParser) -> None:
    """Add the folder for tables."""
    parser.add_argument("--results", type=Path, metavar="DIR", help="the folder for tables (default: results/)")


def add_spec(parser: argparse.ArgumentParser) -> None:
    """Add an experiment, its recipe and its data."""
    parser.add_argument("path", type=Path, metavar="PATH", help="an experiment's file, or a shipped one's name: table1")
    parser.add_argument("--recipe", metavar="NAME", help="data, sizes and schedule, instead of the file's own recipe")
    add_set(parser)
    add_data(parser)
    add_plugin(parser)


def add_set(parser: argparse.ArgumentParser) -> None:
    """Add overrides of values of the experiment or its recipe."""
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="replace values of the experiment or recipe",
    )


def add_plugin(parser: argparse.ArgumentParser) -> None:
    """Add plug-ins; `harness.cli.main` loads them before a verb reads anything."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE|FILE",
        help="a module or file with custom levels or datasets; repeatable; in addition to the plug-ins of harness.yaml",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the folder of the dataset."""
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of a dataset that is not included in the package"
    )


def at_least_one(text: str) -> int:
    """Parse a count."""
    if not (text.isdecimal() and len(text) <= MAX_DIGITS and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {shorten(repr(text))}")
    return int(text)


def _count_or_auto(text: str) -> int | Literal["auto"]:
    return "auto" if text == "auto" else at_least_one(text)


def _count_or_range(text: str) -> int | tuple[int, int]:
    """Parse a count, or the first and the last of some numbers that start at 0."""
    first, dash, last = text.partition("-")
    if not dash:
        return at_least_one(text)
    if not all(part.isdecimal() and len(part) <= MAX_DIGITS for part in (first, last)) or int(first) > int(last):
        raise argparse.ArgumentTypeError(f"must be a number, or two such as 3-5, got {shorten(repr(text))}")
    return int(first), int(last)


def get_seed_range(options: argparse.Namespace) -> tuple[int, int] | None:
    """The first and the last replicate, where only some are asked for."""
    return options.seeds if isinstance(options.seeds, tuple) else None


def load_plan(options: argparse.Namespace) -> Plan:
    """Read the experiment, and print its title before the slow imports."""
    seeds = None if isinstance(options.seeds, tuple) else options.seeds
    spec = load_spec(options.path, recipe=options.recipe, seeds=seeds, overrides=options.set)
    plan = make_plan(spec)
    overrides = f" with {', '.join(spec.overrides)}" if spec.overrides else ""
    head = f"{spec.name}: {spec.title}\nrecipe {spec.recipe.name}{overrides}: {spec.recipe.summary}\n"
    if not getattr(options, "json", False):
        echo(head, flush=True)
    return plan


def print_json(value: object) -> None:
    """Print an indented JSON document; NaN and infinity become null."""
    echo(json.dumps(_to_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def _to_plain(value: object) -> object:
    """Convert dataclasses, mappings and sequences to JSON types."""
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


def make_engine(options: argparse.Namespace, recipe: "RecipeSpec") -> "Engine":
    """What executes runs: the chosen engine, with its file of options."""
    from harness import engines
    from harness.execution import PRELOAD
    from harness.tracking.store import Store

    return engines.make_engine(
        options.engine,
        options.engine_options,
        workers=options.workers,
        recipe_workers=recipe.workers,
        preload=PRELOAD,
        folder=Store(find_store(options)).checkpoints.parent,
    )


def find_results(options: argparse.Namespace) -> Path:
    """The folder for tables."""
    return options.results or find_root() / "results"


def find_digests(plan: Plan, options: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """The digests of today's code and data; empty if the data are missing."""
    from harness.execution import ledger

    try:
        return ledger.find_digests(plan, data_dir=options.data)
    except DataError as error:
        echo(f"harness: {error}; stale runs cannot be identified", file=sys.stderr)
        return {}


def warn_of_stale_sources(plan: Plan, tracker: "Tracker", options: argparse.Namespace) -> None:
    """Warn of rows that start from weights of a stale run."""
    from harness.execution.source import list_stale

    for line in list_stale(plan, tracker, data_dir=options.data):
        echo(f"harness: {line}", file=sys.stderr)


def list_files(files: Sequence[Path]) -> str:
    """Format a line for each written file."""
    return "\n".join(f"written: {_shorten(path)}" for path in files)


def _shorten(path: Path) -> Path:
    """Make a path relative if it is below the working directory."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
