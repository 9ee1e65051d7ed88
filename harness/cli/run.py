"""`harness run`: trains what is missing, then prints the table."""

import argparse
import sys
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, TypeVar, get_args

from harness.cli.options import (
    add_engine,
    add_experiment,
    add_results,
    add_rows,
    find_results,
    find_store,
    get_seed_range,
    list_files,
    load_plan,
    make_engine,
    warn_of_stale_sources,
)
from harness.cli.verb import FAILED, INTERRUPTED, drop_output, echo, interrupt_on_sigterm
from harness.data import fetch_data
from harness.errors import SpecError
from harness.plan import Plan, select_rows
from harness.project import find_root
from harness.spec.experiment import MaxSeeds

if TYPE_CHECKING:
    from harness.execution import Event

T = TypeVar("T")

HELP = "train what is missing or stale, then print the table"
MAX_SEEDS = get_args(MaxSeeds)
EXAMPLE = "harness run experiments/table1.yaml --recipe smoke"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an experiment and the options of its execution."""
    add_experiment(parser, takes_part=True)
    add_results(parser)
    add_rows(parser)
    parser.add_argument(
        "--until",
        choices=("resolved",),
        help="add seeds to each row until its verdict and claims are resolved, equivalent or futile",
    )
    parser.add_argument(
        "--max-seeds", type=int, choices=MAX_SEEDS, help=f"with --until: seeds at most (default: {MAX_SEEDS[-1]})"
    )
    parser.add_argument(
        "--margin", metavar="X", help="with --until: differences within ±X are equivalent (default: the file's margin)"
    )
    add_engine(parser, unit="runs")
    parser.add_argument(
        "--keep-stale", action="store_true", help="do not train again what older code or data has trained"
    )
    parser.add_argument(
        "--retrain", action="store_true", help="train again what older code has trained in another environment"
    )
    parser.add_argument("--retry-failed", action="store_true", help="train again what failed or diverged")
    parser.add_argument(
        "--reproduce",
        action="store_true",
        help="train one seed of every row again, in a store of its own, and compare it with the committed runs "
        "(to replay a run that diverged: harness repro)",
    )
    parser.add_argument(
        "--system-metrics", action="store_true", help="log the usage of processor, memory and GPU to each run"
    )


def execute(options: argparse.Namespace) -> int:
    """Train and print the table; see `to_exit_code`."""
    interrupt_on_sigterm()
    options.set = [*options.set, *_list_rule(options)]
    plan = load_plan(options)
    rows = [row.name for row in select_rows(plan, options.rows).rows] if options.rows else None
    from harness.execution import RunOptions, run_plan
    from harness.tracking import MlflowTracker

    for step in fetch_data(plan.spec.recipe.data, options.data):
        echo(step, flush=True)
    if options.reproduce:
        return _reproduce(select_rows(plan, options.rows), options)
    tracker = MlflowTracker(find_store(options), system_metrics=options.system_metrics)
    warn_of_stale_sources(plan, tracker, options)
    engine = make_engine(options, plan.spec.recipe)
    settings = RunOptions(
        find_results(options),
        options.data,
        options.keep_stale,
        options.command,
        tuple(options.rows),
        retrain=options.retrain,
        retry_failed=options.retry_failed,
        seeds=get_seed_range(options),
    )
    return show_events(plan, run_plan(plan, tracker=tracker, engine=engine, options=settings), rows=rows)


def _reproduce(plan: Plan, options: argparse.Namespace) -> int:
    """Train one committed run of every row again; 1 if one differs."""
    from harness.commands.reproduce import STORE, Match, choose_runs, compare_runs, describe, read_committed
    from harness.execution import RunOptions, run_plan
    from harness.files import temporary_folder
    from harness.tracking import MlflowTracker

    committed = read_committed(plan, find_results(options))
    chosen = choose_runs(plan, committed)
    tracker = MlflowTracker(options.tracking_uri or f"sqlite:///{find_root() / STORE}")
    engine = make_engine(options, plan.spec.recipe)
    with temporary_folder() as scratch:
        settings = RunOptions(scratch, options.data, command=options.command)
        events = run_plan(chosen, tracker=tracker, engine=engine, options=settings)
        code = show_events(chosen, events, shows_table=False)
    if code != 0:
        return code
    reproduced = compare_runs(chosen, committed, tracker, data_dir=options.data)
    echo(f"\n{describe(reproduced)}")
    return FAILED if any(item.match == Match.DIFFERENT for item in reproduced) else 0


def _list_rule(options: argparse.Namespace) -> list[str]:
    """`--until` and its options as overrides, so that the results state them and have their own folder."""
    if options.reproduce and (options.until is not None or options.seeds is not None):
        raise SpecError("--reproduce chooses the seeds itself: leave out --until and --seeds")
    if options.until is None:
        if options.max_seeds is not None or options.margin is not None:
            raise SpecError("--max-seeds and --margin need --until resolved")
        return []
    if options.rows or options.seeds is not None:
        raise SpecError("--until resolved chooses rows and seeds itself: leave out --rows and --seeds")
    margin = [] if options.margin is None else [f"margin={options.margin}"]
    return [f"until_resolved={options.max_seeds or MAX_SEEDS[-1]}", *margin]


def show_events(
    plan: Plan,
    events: "Generator[Event, None, None]",
    *,
    rows: Collection[str] | None = None,
    shows_table: bool = True,
) -> int:
    """Show the events of a plan, then its table or some of its rows; returns the exit code."""
    from harness.commands.progress import Tally, open_progress
    from harness.execution import TableWritten
    from harness.report.terminal import to_text
    from harness.tasks import find_measure

    tally = Tally()
    try:
        with open_progress(sys.stdout, find_measure(plan.spec)) as show, closing(events):
            try:
                for event in events:
                    tally.add(event)
                    _try_to_show(show, event)
            except KeyboardInterrupt:
                for event in take_last(events):
                    tally.add(event)
                raise
    except KeyboardInterrupt:
        echo(
            f"\ninterrupted: {tally.done} of {tally.total} runs are done; run the same command to continue",
            file=sys.stderr,
        )
        return INTERRUPTED
    assert isinstance(event, TableWritten)
    results = event.results if rows is None else event.results.select(rows)
    if shows_table:
        echo(f"\n{to_text(results)}\n\n{list_files(event.files)}")
    for record in tally.failed:
        echo(f"failed: {record.row} seed {record.seed}; more in error.txt or output.txt of MLflow run {record.run_id}")
    for record in tally.interrupted:
        echo(f"interrupted: {record.row} seed {record.seed}, {record.status_detail}; the same command trains it again")
    return to_exit_code(tally.failed, tally.interrupted)


def _try_to_show(show: "Callable[[Event], object]", event: "Event") -> None:
    """Show an event; training continues without output if the terminal or pipe is closed, or the disk is full."""
    try:
        show(event)
        sys.stdout.flush()
    except OSError as error:
        drop_output()
        echo(f"harness: progress cannot be shown: {error.strerror}; training continues", file=sys.stderr)


def take_last(events: "Generator[T, None, None]") -> "Iterator[T]":
    """The remaining events of a stream after Ctrl-C has interrupted it."""
    with suppress(KeyboardInterrupt, StopIteration):
        yield events.throw(KeyboardInterrupt)
        yield from events


def to_exit_code(failed: object, interrupted: object) -> int:
    """1 if a run failed by a bug, 130 if a run was interrupted, 0 otherwise."""
    return FAILED if failed else INTERRUPTED if interrupted else 0
