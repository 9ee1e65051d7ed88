"""The verbs: parse, call, print. Everything heavy is imported inside a verb, so that `--help` is quick."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from harness.data import DATASETS, check_data, describe_data, fetch_data
from harness.errors import DataError, HarnessError
from harness.plan import Plan, make_plan
from harness.reading import load_spec

INTERRUPTED = 130
FAILED = 1

Verb = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Execute one command line and return its exit code.

    0: done. 1: some run failed. 2: a mistake of the user, told in one message. 130: interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _make_parser().parse_args(arguments)
    options.command = shlex.join(["harness", *arguments])
    verb: Verb = options.verb
    try:
        return verb(options)
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


def show_plan(options: argparse.Namespace) -> int:
    """`harness plan`: what the experiment would train."""
    plan = _load_plan(options)
    from harness.commands.overview import describe_plan
    from harness.run.ledger import read_ledger
    from harness.tracking import MlflowTracker

    tracker = MlflowTracker(_find_store(options))
    entries = read_ledger(plan, tracker, _find_digests(plan, options))
    print(describe_plan(plan, entries))
    return 0


def describe(options: argparse.Namespace) -> int:
    """`harness describe`: what an operator or a row is."""
    from harness.commands.describe import describe_row, find_described

    print(describe_row(*find_described(options.name, options.row, recipe=options.recipe)))
    return 0


def run(options: argparse.Namespace) -> int:
    """`harness run`: train what is missing, then print the table."""
    plan = _load_plan(options)
    from harness.commands.progress import Tally, open_progress
    from harness.engines import ENGINES
    from harness.run import PRELOAD, RunOptions, TableWritten, run_plan
    from harness.table import to_text
    from harness.tracking import MlflowTracker

    for step in fetch_data(plan.spec.recipe.data, options.data):
        print(step, flush=True)
    tracker = MlflowTracker(_find_store(options))
    engine = ENGINES["local"](workers=options.workers or plan.spec.recipe.workers, preload=PRELOAD)
    settings = RunOptions(_find_results(options), options.data, options.keep_stale, options.command)
    tally = Tally()
    try:
        with (
            open_progress(sys.stdout) as show,
            closing(run_plan(plan, tracker=tracker, engine=engine, options=settings)) as events,
        ):
            for event in events:
                tally.add(event)
                show(event)
    except KeyboardInterrupt:
        print(
            f"\ninterrupted: {tally.done} of {tally.total} runs are done; the same command goes on from here",
            file=sys.stderr,
        )
        return INTERRUPTED
    assert isinstance(event, TableWritten)
    print(f"\n{to_text(event.frame, plan, event.findings)}\n\n{_list_files(event.files)}")
    for record in tally.failed:
        print(f"failed: {record.row} seed {record.seed}; more in error.txt or output.txt of MLflow run {record.run_id}")
    return FAILED if tally.failed else 0


def show_table(options: argparse.Namespace) -> int:
    """`harness table`: the table of what the store has."""
    plan = _load_plan(options)
    from harness.run import write_results
    from harness.table import to_text
    from harness.tracking import MlflowTracker

    tracker = MlflowTracker(_find_store(options))
    written = write_results(plan, tracker, _find_digests(plan, options), _find_results(options))
    print(f"{to_text(written.frame, plan, written.findings)}\n\n{_list_files(written.files)}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """`harness evaluate`: what a row scores with weights from a file."""
    plan = _load_plan(options)
    from harness.commands.evaluate import evaluate_row

    print(evaluate_row(plan, options.row, options.weights, options.data))
    return 0


def show_data(options: argparse.Namespace) -> int:
    """`harness data`: what is there and where."""
    from harness.commands.inventory import describe_inventory

    if options.target is None or options.target in DATASETS:
        names = DATASETS if options.target is None else [options.target]
        print(describe_inventory(describe_data(name, options.data) for name in names))
        return 0
    recipe = load_spec(Path(options.target), recipe=options.recipe).recipe
    print(describe_inventory([describe_data(recipe.data.name, options.data, spec=recipe.data)]))
    check_data(recipe.data, recipe.training, data_dir=options.data)
    return 0


def bench(options: argparse.Namespace) -> int:
    """`harness bench`: times and memory of every operator, against others' and the goals."""
    from harness.commands.bench.display import open_display
    from harness.commands.bench.report import to_text, write_report
    from harness.commands.bench.session import BenchOptions, Finished, run_bench

    results = _find_results(options)
    asked = BenchOptions(
        names=tuple(options.only),
        quick=options.quick,
        repeats=options.repeats,
        device=options.device,
        allow_load=options.allow_load,
        results=results,
    )
    if options.list:
        print("\n".join(case.id for case in asked.list_cases()))
        return 0
    with open_display(sys.stdout) as show, closing(run_bench(asked)) as events:
        for event in events:
            show(event)
    assert isinstance(event, Finished)
    report = event.report
    print(f"\n{to_text(report)}\n")
    folder = options.output or (results / "bench" if report.is_result else None)
    if folder is None:
        print("nothing is written: a part of the cases, or a busy machine, makes no results file (--output DIR does)")
    else:
        print(_list_files(write_report(report, folder)))
    return FAILED if report.loaded else 0


def _load_plan(options: argparse.Namespace) -> Plan:
    """Read the experiment, and say what it is before the slow imports begin."""
    spec = load_spec(options.path, recipe=options.recipe, seeds=options.seeds, overrides=options.set)
    plan = make_plan(spec)
    overrides = f" with {', '.join(spec.overrides)}" if spec.overrides else ""
    print(f"{spec.name}: {spec.title}\nrecipe {spec.recipe.name}{overrides}: {spec.recipe.title}\n", flush=True)
    return plan


def _find_store(options: argparse.Namespace) -> str:
    from harness.tracking import default_tracking_uri

    return options.tracking_uri or default_tracking_uri()


def _find_results(options: argparse.Namespace) -> Path:
    from harness.tracking import find_root

    return options.results or find_root() / "results"


def _find_digests(plan: Plan, options: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Those of today; without the data nothing can be told to be stale."""
    from harness.run.ledger import find_digests

    try:
        return find_digests(plan, data_dir=options.data)
    except DataError as error:
        print(f"harness: {error}; what is stale is not known", file=sys.stderr)
        return {}


def _list_files(files: Sequence[Path]) -> str:
    return "\n".join(f"written: {_shorten(path)}" for path in files)


def _shorten(path: Path) -> Path:
    """Seen from the working directory where it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness", description="Runs the tables of an ablation study of local self-attention."
    )
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    _add_experiment(
        _add_verb(verbs, "plan", show_plan, "every cell with its cost, and what is done, stale or to do"), results=False
    )
    describe_parser = _add_verb(verbs, "describe", describe, "an operator's equation, source, parts, and what it costs")
    describe_parser.add_argument("name", metavar="PRESET|PATH", help="a preset, or the experiment of a row")
    describe_parser.add_argument("row", nargs="?", metavar="ROW", help="a row of the experiment")
    describe_parser.add_argument(
        "--recipe", metavar="NAME", help="sizes; default: the experiment's, imagenet for a preset"
    )
    run_parser = _add_verb(verbs, "run", run, "train what is missing or stale, then print the table")
    _add_experiment(run_parser)
    run_parser.add_argument("--workers", type=_at_least_one, metavar="N", help="runs at once (default: the recipe's)")
    run_parser.add_argument(
        "--keep-stale", action="store_true", help="do not train again what older code or data has trained"
    )
    _add_experiment(_add_verb(verbs, "table", show_table, "the table of what is stored; trains nothing"))
    _add_evaluate(_add_verb(verbs, "evaluate", evaluate, "top-1 and top-5 of a row with weights from a file"))
    data = _add_verb(verbs, "data", show_data, "which datasets are there, and where")
    data.add_argument("target", nargs="?", metavar="PATH|NAME", help="an experiment or a dataset (default: all)")
    data.add_argument("--recipe", metavar="NAME", help="instead of the experiment's own")
    _add_data(data)
    _add_bench(_add_verb(verbs, "bench", bench, "time and memory of every operator, against others' and the goals"))
    return parser


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    _add_spec(parser)
    parser.add_argument("row", metavar="ROW", help="a row of the experiment, or one of its floors")
    parser.add_argument(
        "--weights",
        type=Path,
        required=True,
        metavar="FILE",
        help="what a run has kept (weights.pt), or a checkpoint released for ELSA-Swin or Swin (torch, safetensors)",
    )
    parser.set_defaults(seeds=None)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="cases by any part of their names: net7_n, torch/s1, net7_n/cpu/s3",
    )
    parser.add_argument("--quick", action="store_true", help="a look: three rounds, without what takes long")
    parser.add_argument("--repeats", type=_at_least_one, metavar="N", help="rounds (default: 7, with --quick 3)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where torch sees it")
    parser.add_argument("--list", action="store_true", help="print the cases, measure nothing")
    parser.add_argument(
        "--allow-load", action="store_true", help="measure on a busy machine too; what comes out is marked as no result"
    )
    parser.add_argument("--results", type=Path, metavar="DIR", help="where results go, in bench/ (default: results/)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write there instead, whatever was measured")


def _add_verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, verb: Verb, text: str
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(verb=verb)
    return parser


def _add_experiment(parser: argparse.ArgumentParser, *, results: bool = True) -> None:
    _add_spec(parser)
    parser.add_argument("--seeds", type=_at_least_one, metavar="N", help="replicates of each row")
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow's store (default: mlflow.db in the checkout)")
    if results:
        parser.add_argument("--results", type=Path, metavar="DIR", help="where tables go (default: results/)")


def _add_spec(parser: argparse.ArgumentParser) -> None:
    """The experiment, its recipe, its data."""
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
    _add_data(parser)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="where a dataset lies that does not ship with the package"
    )


def _at_least_one(text: str) -> int:
    """A count; argparse tells what is wrong with anything else."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
