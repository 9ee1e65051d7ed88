"""The command line: parses arguments, calls one function for each verb, and prints. Imports no torch."""

import argparse
import io
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from harness.cli import (
    checklist,
    claims,
    completion,
    data,
    describe,
    diff,
    doctor,
    evaluate,
    export,
    init,
    listing,
    plan,
    records,
    rehearse,
    repro,
    run,
    search,
    show,
    status,
    table,
    ui,
    verify,
)
from harness.cli.verb import INTERRUPTED, PIPE_CLOSED, Verb, drop_output, echo
from harness.credentials import join_command
from harness.errors import HarnessError
from harness.names import to_printable
from harness.plugins import load_plugins, load_project_plugins
from paradigms.facts import shorten

VERBS: dict[str, Verb] = {
    "init": init,
    "list": listing,
    "plan": plan,
    "describe": describe,
    "rehearse": rehearse,
    "run": run,
    "table": table,
    "claims": claims,
    "search": search,
    "evaluate": evaluate,
    "status": status,
    "show": show,
    "repro": repro,
    "records": records,
    "verify": verify,
    "diff": diff,
    "checklist": checklist,
    "ui": ui,
    "export": export,
    "data": data,
    "doctor": doctor,
    "completion": completion,
}
"""The modules by the name of the verb, in the order of `harness --help`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Execute one command line and return its exit code.

    0: done. 1: some run failed. 2: a mistake of the user, reported in one message. 130: interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = make_parser().parse_args(arguments)
    options.command = to_printable(join_command(["harness", *arguments]))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name need not be what the terminal can show
    try:
        if "plugin" in options:
            load_project_plugins()
            load_plugins(*options.plugin)
        code = VERBS[options.verb].execute(options)
        sys.stdout.flush()
        return code
    except HarnessError as error:
        echo(f"harness: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader has closed the pipe: `harness list | head`
        drop_output()
        return PIPE_CLOSED
    except OSError as error:
        if error.filename is not None:
            raise
        drop_output()
        print(f"harness: the output cannot be written: {error.strerror}", file=sys.stderr)
        return HarnessError.exit_code


class _Parser(argparse.ArgumentParser):
    """A parser whose errors suggest the nearest verb, choice or option."""

    def _check_value(self, action: argparse.Action, value: str) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            message = f"invalid choice: {shorten(repr(value))}{_suggest(value, known)} (choose from {', '.join(known)})"
            raise argparse.ArgumentError(action, message)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            hint = _suggest(unknown[0], _list_options(self, options.verb))
            self.error(f"unrecognized arguments: {shorten(' '.join(unknown))}{hint}")
        return options


def _suggest(name: str, known: Sequence[str]) -> str:
    nearest = get_close_matches(name, known, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def _list_options(parser: argparse.ArgumentParser, verb: str) -> list[str]:
    """The options of a verb."""
    (verbs,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    return [name for action in verbs[verb]._actions for name in action.option_strings]


def make_parser() -> argparse.ArgumentParser:
    """The parser of every verb."""
    parser = _Parser(
        prog="harness",
        description="Runs the tables of an ablation study of local self-attention.",
        epilog="example: harness run table1 --recipe smoke",
    )
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB", dest="verb")
    for name, verb in VERBS.items():
        verb.add_arguments(
            verbs.add_parser(
                name,
                help=verb.HELP,
                description=f"{verb.HELP[0].upper()}{verb.HELP[1:]}.",
                epilog=f"example: {verb.EXAMPLE}",
            )
        )
    return parser
