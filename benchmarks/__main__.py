"""`python -m benchmarks`: measures time and memory of every operator and compares them with the goals."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing

from benchmarks.display import open_display
from benchmarks.report import add_folders, to_text, write_report
from benchmarks.session import BenchOptions, Finished, run_bench
from harness.cli.options import at_least_one, find_results, list_files
from harness.cli.verb import FAILED, INTERRUPTED, PIPE_CLOSED, drop_output, echo
from harness.errors import HarnessError


def make_parser() -> argparse.ArgumentParser:
    """What to measure, how often, where to write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time and memory of every operator, against others' and the goals.",
        epilog="example: python -m benchmarks --quick --only net7_n/cpu",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="cases by any part of their names: net7_n, torch/s1, net7_n/cpu/s3",
    )
    parser.add_argument("--quick", action="store_true", help="a look: three rounds, without what takes long")
    parser.add_argument("--repeats", type=at_least_one, metavar="N", help="rounds (default: 7, with --quick 3)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where torch sees it")
    parser.add_argument("--list", action="store_true", help="print the cases, measure nothing")
    parser.add_argument(
        "--allow-load", action="store_true", help="measure on a busy machine too; what comes out is marked as no result"
    )
    add_folders(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; returns the exit code.

    0: done. 1: the machine was busy. 2: a mistake of the user, reported in one message. 130: interrupted.
    """
    options = make_parser().parse_args(argv)
    try:
        code = _execute(options)
        sys.stdout.flush()
        return code
    except HarnessError as error:
        echo(f"benchmarks: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `python -m benchmarks --list | head`
        drop_output()
        return PIPE_CLOSED


def _execute(options: argparse.Namespace) -> int:
    results = find_results(options)
    asked = BenchOptions(
        names=tuple(options.only),
        quick=options.quick,
        repeats=options.repeats,
        device=options.device,
        allow_load=options.allow_load,
        results=results,
    )
    if options.list:
        echo("\n".join(case.id for case in asked.list_cases()))
        return 0
    with open_display(sys.stdout) as show, closing(run_bench(asked)) as events:
        for event in events:
            show(event)
    assert isinstance(event, Finished)
    report = event.report
    echo(f"\n{to_text(report)}\n")
    folder = options.output or (results / "bench" if report.is_result else None)
    if folder is None:
        echo("nothing is written: a part of the cases, or a busy machine, makes no results file (--output DIR does)")
    else:
        echo(list_files(write_report(report, folder)))
    return FAILED if report.loaded else 0


if __name__ == "__main__":
    sys.exit(main())
