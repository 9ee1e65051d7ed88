"""`harness completion`: the completion script, generated from the parser by shtab."""

import argparse
from collections.abc import Iterable, Iterator, Mapping

import shtab

from harness.reading import list_experiments, list_recipes
from paradigms.presets import PRESETS

NAMES = {"path": "experiments", "paths": "experiments", "target": "experiments", "name": "presets", "recipe": "recipes"}
"""The kind of names that complete an argument, by its destination."""

FILES = {"DIR": shtab.DIRECTORY, "FILE": shtab.FILE, "PATH|URL": shtab.FILE}
"""The kind of files that complete an argument, by its name in `--help`."""

_FUNCTIONS = {
    "bash": '_harness_{kind}() {{ compgen -W "{words}" -- "$1"; {files}; }}',
    "zsh": "_harness_{kind}() {{ compadd -- {words}; {files}; }}",
}
_FILES = {"bash": 'compgen -f -- "$1"', "zsh": "_files"}


def write_completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for `bash` or `zsh`; it completes verbs, options, experiments, recipes, presets, files and folders."""
    for action in _list_actions(parser):
        if action.dest in NAMES:
            _complete(action, dict.fromkeys(_FUNCTIONS, f"_harness_{NAMES[action.dest]}"))
        elif isinstance(action.metavar, str) and action.metavar in FILES:
            _complete(action, FILES[action.metavar])
    return shtab.complete(parser, shell, preamble=_write_functions(shell))


def _complete(action: argparse.Action, how: Mapping[str, object]) -> None:
    """Set the completion of an argument, in the attribute that shtab reads."""
    action.complete = how  # type: ignore[attr-defined]


def _list_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of the parser and of all verbs."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _list_actions(verb)


def _write_functions(shell: str) -> str:
    """Shell functions for each kind of name; an experiment may also be a path."""
    words: dict[str, Iterable[str]] = {"experiments": list_experiments(), "presets": PRESETS, "recipes": list_recipes()}
    return "\n".join(
        _FUNCTIONS[shell].format(kind=kind, words=" ".join(names), files=":" if kind == "recipes" else _FILES[shell])
        for kind, names in words.items()
    )
