from functools import cache
from pathlib import Path
from unicodedata import combining

import pytest

from harness.cli import main
from harness.commands.describe import describe_row, find_described, measure_stages
from harness.costs import measure_cost
from harness.errors import SpecError
from harness.plan import Plan
from paradigms.presets import PRESETS

pytestmark = pytest.mark.usefixtures("quick_meta")

EXPERIMENT = "table1"


@cache
def describe(name: str, row: str | None = None, recipe: str | None = "smoke") -> str:
    return describe_row(*find_described(name, row, recipe=recipe))


def marks_of(preset: str) -> tuple[pytest.MarkDecorator, ...]:
    """Some presets are quick tests, the others slow ones."""
    return () if preset in ("swin", "elsa", "ddf", "dwconv") else (pytest.mark.slow,)


@pytest.mark.parametrize(
    "preset",
    [pytest.param(name, marks=marks_of(name)) for name in PRESETS],
)
def test_every_preset_has_its_equation_its_source_and_its_parts(preset: str) -> None:
    text, config = " ".join(describe(preset, recipe="smoke").split()), PRESETS[preset].config
    assert PRESETS[preset].equation in text
    assert PRESETS[preset].source in text
    for level in (*config.parameterization, config.normalization, config.neighborhood, config.aggregation):
        assert level in text


@pytest.mark.parametrize(
    ("preset", "recipe"),
    [
        *(pytest.param(preset, "smoke", marks=marks_of(preset), id=preset) for preset in PRESETS),
        *(
            pytest.param(preset, "imagenet", marks=pytest.mark.slow, id=f"{preset}-imagenet")
            for preset in ("net7", "swin_n", "elsa", "ddf", "involution")
        ),
    ],
)
def test_it_is_readable_in_100_columns(preset: str, recipe: str) -> None:
    lines = describe(preset, recipe=recipe).splitlines()
    assert max(sum(not combining(letter) for letter in line) for line in lines) <= 100


def test_a_row_is_named_after_the_preset_that_it_is() -> None:
    assert "arXiv:2112.12786, Table 1 (preset net7)" in describe(EXPERIMENT, "Net7")


def test_what_has_no_effect_is_left_out() -> None:
    window, sliding = describe("swin", recipe="smoke"), describe("swin_n", recipe="smoke")
    assert "window_size 7" in window and "kernel_size" not in window
    assert "kernel_size 7" in sliding and "window_size" not in sliding
    assert "ghost_lambda" in describe("elsa", recipe="smoke") and "ghost_lambda" not in window


def test_stages_with_operators_of_their_own_have_paragraphs_of_their_own(small_plan: Plan) -> None:
    row = next(row for row in small_plan.rows if row.name == "Net7-N")
    text = describe_row(row, small_plan.spec.recipe)
    assert text.index("stage 1:") < text.index("sliding_window") < text.index("stage 2:") < text.index("local_window")


def test_stages_and_the_rest_make_the_whole(small_plan: Plan) -> None:
    for row in small_plan.rows[:3]:
        costs, whole = measure_stages(row.cell).values(), measure_cost(row.cell)
        assert [cost.blocks for cost in costs] == [1, 1]
        assert all(0 < cost.attention_macs < cost.macs for cost in costs)
        assert 0.5 * whole["macs"] < sum(cost.macs for cost in costs) < whole["macs"]
        assert sum(cost.params for cost in costs) < whole["params"]


def test_a_floor_has_a_cost_and_no_operator(small_plan: Plan) -> None:
    floor = next(row for row in small_plan.rows if row.is_floor)
    text = describe_row(floor, small_plan.spec.recipe)
    assert "7,850" in text
    assert "equation" not in text


def test_an_unknown_preset_is_told_with_the_nearest_and_the_known() -> None:
    with pytest.raises(SpecError, match=r"unknown preset 'net77'; did you mean 'net7'\? \(known: swin, .*elsa"):
        find_described("net77", None, recipe=None)


def test_an_unknown_row_is_told_with_the_nearest_and_the_known() -> None:
    with pytest.raises(SpecError, match=r"unknown row 'Net77'; did you mean 'Net7'\? \(known: Swin-T, "):
        find_described(EXPERIMENT, "Net77", recipe=None)


@pytest.mark.parametrize("name", [EXPERIMENT, f"experiments/{EXPERIMENT}.yaml"])
def test_an_experiment_alone_is_asked_for_a_row(name: str) -> None:
    with pytest.raises(SpecError, match=r"name one of them: Swin-T, Swin-T again, Net1"):
        find_described(name, None, recipe=None)


def test_an_unknown_recipe_is_told_with_the_known() -> None:
    with pytest.raises(SpecError, match=r"unknown recipe 'imagenett'; did you mean 'imagenet'"):
        find_described("swin", None, recipe="imagenett")


def test_a_broken_experiment_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("titel: x\n")
    with pytest.raises(SpecError, match="titel"):
        find_described(str(path), None, recipe=None)


def test_the_command_prints_it_or_says_in_one_line_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", EXPERIMENT, "Net7", "--recipe", "smoke"]) == 0
    assert capsys.readouterr().out.startswith("Net7: swin under recipe smoke")
    assert main(["describe", "net77"]) == 2
    assert capsys.readouterr().err.startswith("harness: unknown preset 'net77'")
