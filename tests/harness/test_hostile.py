"""Mutations of the shipped files, drawn from a seed: whatever they become, an error is one `SpecError`."""

import random
from pathlib import Path

import pytest

from harness.errors import SpecError
from harness.plan import make_plan
from harness.reading import get_shipped_dir, load_kind, load_spec
from harness.search.space import make_space
from harness.search.spec import SearchSpec

SHIPPED = get_shipped_dir()
FILES = sorted(SHIPPED.rglob("*.yaml"))
VALUES = (
    *(
        "null",
        "true",
        "[]",
        "{}",
        "''",
        "-1",
        "0",
        "1.5",
        "1e11",
        "100000000000",
        "1e400",
        ".nan",
        "-.inf",
        "0b_",
        "0o9",
    ),
    *("9" * 60, "2024-13-45", "[1, [2, [3]]]", "{a: {b: 1}}", "[null, {}]", "x" * 300, "'\\'", '"\\ud800"', '"\\0"'),
    *(
        "*a",
        "&a 1",
        "!!int x",
        "!x",
        "<<: *a",
        "? [1]",
        "- a",
        "\t",
        "|",
        ">",
        "%",
        "@",
        "`",
        ":",
        "C",
        "1x",
        "all",
        "{1: 2}",
    ),
)


def mutate(text: str, chance: random.Random) -> bytes:
    """One to three changes: of a value, a key, a line, or of bytes."""
    for _ in range(chance.randint(1, 3)):
        lines = text.splitlines(keepends=True)
        spot = chance.randrange(len(lines))
        match chance.randrange(7):
            case 0:
                key, colon, _ = lines[spot].partition(":")
                lines[spot] = f"{key}{colon} {chance.choice(VALUES)}\n"
            case 1:
                words = lines[spot].split(" ")
                words[chance.randrange(len(words))] = chance.choice(VALUES)
                lines[spot] = " ".join(words)
            case 2:
                del lines[spot]
            case 3:
                lines.insert(spot, chance.choice(lines))
            case 4:
                lines[spot] = chance.choice(("", " ", "  ", "\t")) + lines[spot].lstrip(" ")
            case 5:
                place = chance.randrange(len(lines[spot]) + 1)
                lines[spot] = lines[spot][:place] + chance.choice("[]{}:,&*!|>'\"%@`#-?\n\0é") + lines[spot][place:]
            case _:
                number = chance.choice(("-3", "0", "1e11", "77777777777", "0.5", "1_0", "1e-400"))
                lines[spot] = "".join(
                    number if char.isdecimal() and chance.random() < 0.3 else char for char in lines[spot]
                )
        text = "".join(lines) or "\n"
    content = bytearray(text.encode())
    if chance.random() < 0.1:
        content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content)


def read_mutated(folder: Path, seed: int) -> None:
    """A mutated experiment under a shipped recipe, or a shipped experiment under a mutated recipe."""
    chance = random.Random(seed)
    source = chance.choice(FILES)
    is_recipe = source.parent.name == "recipes"
    target = folder / ("recipes" if is_recipe else "") / source.name
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(mutate(source.read_text(), chance))
    experiment = target
    if is_recipe:
        experiment = folder / "table1.yaml"
        experiment.write_text((SHIPPED / "table1.yaml").read_text())
    try:
        if source.stem.endswith("_search"):
            make_space(load_kind(SearchSpec, experiment))
        else:
            make_plan(load_spec(experiment, recipe=source.stem if is_recipe else chance.choice((None, "smoke"))))
    except SpecError as error:
        assert 0 < len(str(error)) < 20_000
    finally:
        target.unlink()


@pytest.mark.parametrize(
    "seeds",
    [pytest.param(range(20), id="some"), pytest.param(range(20, 1000), marks=pytest.mark.slow, id="many")],
)
def test_a_mutated_file_is_read_or_refused_by_one_message(tmp_path: Path, seeds: range) -> None:
    for seed in seeds:
        try:
            read_mutated(tmp_path, seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
