"""`harness records`: exports, imports and merges runs as files."""

import argparse
from pathlib import Path

from harness.cli.options import (
    add_data,
    add_plugin,
    add_results,
    add_set,
    add_store,
    find_results,
    find_store,
    list_files,
)
from harness.cli.verb import echo
from harness.errors import SpecError
from harness.plan import make_plan
from harness.reading import load_spec
from harness.text import count_noun

HELP = "runs as files: export from the store, import into it, merge"
EXAMPLE = "harness records export experiments/table1.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action and its files."""
    parser.add_argument("action", choices=("export", "import", "merge"), help="what to do")
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="experiments to export; record files to import or merge"
    )
    parser.add_argument("--recipe", metavar="NAME", help="of exported experiments, instead of the file's own")
    add_set(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="where `merge` writes")
    add_results(parser)
    add_data(parser)
    add_store(parser)
    add_plugin(parser)


def execute(options: argparse.Namespace) -> int:
    """Execute the action, and print the written files or the number of runs."""
    from harness.commands.records import export_runs, import_runs, merge_files
    from harness.tracking import MlflowTracker

    if (options.output is None) == (options.action == "merge"):
        raise SpecError("merge needs --output, a .jsonl file; export and import take none")
    if options.set and options.action != "export":
        raise SpecError(f"--set is for export alone: {options.action} takes record files, not experiments")
    if options.action == "merge":
        echo(list_files(merge_files(options.paths, options.output)))
        return 0
    tracker = MlflowTracker(find_store(options))
    if options.action == "import":
        added, known = import_runs(options.paths, tracker)
        echo(f"{count_noun(added, 'run')} imported, {known} known already")
        return 0
    for path in options.paths:
        plan = make_plan(load_spec(path, recipe=options.recipe, overrides=options.set))
        echo(list_files(export_runs(plan, tracker, find_results(options), data_dir=options.data)))
    return 0
