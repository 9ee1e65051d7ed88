import subprocess

import pytest

from harness.cli import VERBS, make_parser
from harness.commands.completion import write_completion
from harness.reading import list_experiments, list_recipes
from paradigms.presets import PRESETS


def complete(*words: str) -> set[str]:
    """What bash offers for the last word."""
    quoted = " ".join(f"'{word}'" for word in words)
    script = (
        f"{write_completion(make_parser(), 'bash')}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}\n"
        "_shtab_harness; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True, cwd="/")
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("harness", ""), set(VERBS)),
        (("harness", "run", "tab"), {name for name in list_experiments() if name.startswith("tab")}),
        (("harness", "status", "table1", "--recipe", ""), set(list_recipes())),
        (("harness", "describe", "net7"), {name for name in PRESETS if name.startswith("net7")}),
        (("harness", "run", "--keep"), {"--keep-stale"}),
    ],
    ids=["verbs", "experiments", "recipes", "presets", "options"],
)
def test_bash_completes(words: tuple[str, ...], expected: set[str]) -> None:
    assert complete(*words) == expected


def test_zsh_gets_the_same_names() -> None:
    script = write_completion(make_parser(), "zsh")
    assert script.startswith("#compdef harness")
    assert f"_harness_recipes() {{ compadd -- {' '.join(list_recipes())};" in script
