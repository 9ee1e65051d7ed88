from pathlib import Path

import optuna
import pytest

from harness.cell import Cell
from harness.errors import SpecError
from harness.reading import find_experiments, load_spec
from harness.search import load_search
from harness.search.space import Space, make_space
from harness.search.spec import WINNER

HEAD = """\
title: A search
recipe: smoke
baseline: ELSA
rows:
  ELSA: {stages: {not_last: {preset: elsa}}}
search:
"""


def write(folder: Path, space: str, study: str = "") -> Path:
    path = folder / "a_search.yaml"
    path.write_text(HEAD + "".join(f"  {line}\n" for line in space.splitlines()) + study)
    return path


def read(folder: Path, space: str, study: str = "", *overrides: str) -> Space:
    return make_space(load_search(write(folder, space, study), overrides=overrides))


def find_cell(space: Space, **values: object) -> Cell:
    return space.find_cell("trial", {name.replace("__", "."): value for name, value in values.items()}).cell


LAMBDA = "ghost_lambda: {low: 0, high: 3, stages: not_last}"

MISTAKES = {
    "a field's name": ("ghost_lamda: {low: 0, high: 3}", 7, "did you mean 'ghost_lambda'?"),
    "a recipe's name": (
        "training.lrr: {low: 1e-3, high: 1}",
        7,
        "unknown value of the recipe 'lrr'; did you mean 'lr'?",
    ),
    "a part of a recipe": ("data.train_images: {low: 10, high: 20}", 7, "unknown part of a recipe 'data'"),
    "a dimension's key": ("ghost_lambda: {lo: 0, high: 3}", 7, "unknown key 'lo'; did you mean"),
    "a range without an end": (f"{LAMBDA}\nghost_gamma: {{low: 0.1}}", 8, "state low and high, or choices, or a value"),
    "ends in the wrong order": ("ghost_lambda: {low: 3, high: 0}", 7, "low must be below high, got 3 and 0"),
    "a step that does not divide": (
        "ghost_lambda: {low: 0, high: 3, step: 0.7, stages: not_last}",
        7,
        "step must divide high - low: steps of 0.7 from 0 reach 2.8",
    ),
    "choices that are equal": ("ghost_lambda: {choices: [1, 1.0], stages: not_last}", 7, "choices must differ"),
    "a logarithm of zero": ("ghost_gamma: {low: 0, high: 3, log: true}", 7, "zero: true adds the point 0"),
    "an end that is no value": ("ghost_lambda: {low: -1, high: 3, stages: not_last}", 7, "-1.0 is not possible"),
    "a choice that is no value": ("normalization: {choices: [softmax, softmin]}", 7, "did you mean 'softmax'?"),
    "an even kernel": (
        "kernel_size: {low: 3, high: 8, stages: not_last}",
        7,
        "kernel_size must be odd",
    ),
    "half a pixel": ("kernel_size: {low: 3, high: 7.5, stages: not_last}", 7, "this field takes whole numbers"),
    "a stage that is not there": ("ghost_lambda: {low: 0, high: 3, stages: 5}", 7, "the backbone has stages 1 to 2"),
    "no effect": ("ghost_lambda: {low: 0, high: 3}", 7, "has no effect on row 'ELSA'"),
    "nothing that varies": ("ghost_lambda: 1", 6, "nothing varies"),
}


@pytest.mark.parametrize(("space", "line", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_space_is_told_with_its_line(tmp_path: Path, space: str, line: int, message: str) -> None:
    path = write(tmp_path, space)
    with pytest.raises(SpecError) as caught:
        load_search(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)


LIMITS = {
    "trials": (LAMBDA, "trials: 100001", "study.trials: must be less than or equal to 100000, got 100001"),
    "random trials": (LAMBDA, "startup_trials: 100001", "study.startup_trials: must be less than or equal to 100000"),
    "seed": (LAMBDA, "seed: 10000000000", "study.seed: must be less than or equal to 1000000000"),
    "points": (
        "ghost_lambda: {low: 0, high: 3, points: 1001}",
        "",
        "search.ghost_lambda.points: must be less than or equal to 1000, got 1001",
    ),
    "end": ("ghost_lambda: {low: 0, high: 1e300}", "", "search.ghost_lambda.high: must be less than or equal to"),
    "steps": (
        "ghost_lambda: {low: 0, high: 3, step: 1e-300}",
        "",
        "search.ghost_lambda: a range has at most 1,000,000 steps, got 3e+300",
    ),
    "choices": (
        f"ghost_lambda: {{choices: {[*range(1001)]}}}",
        "",
        "search.ghost_lambda.choices: must have at most 1000 entries",
    ),
    "stages": (
        f"ghost_lambda: {{low: 0, high: 3, stages: {[1] * 9}}}",
        "",
        "search.ghost_lambda.stages: must have at most 8 entries",
    ),
    "first points": (LAMBDA, f"first: {[{}] * 1001}", "study.first: must have at most 1000 entries"),
    "grid": (
        "ghost_lambda: {low: 0, high: 3, step: 0.0001, stages: not_last}",
        "sampler: grid",
        "study.sampler: a grid has at most 10,000 combinations, got 30,001",
    ),
}


@pytest.mark.parametrize(("space", "study", "message"), LIMITS.values(), ids=LIMITS)
def test_sizes_of_a_search_have_limits(tmp_path: Path, space: str, study: str, message: str) -> None:
    path = write(tmp_path, space, f"study:\n  {study}\n" if study else "")
    with pytest.raises(SpecError) as caught:
        load_search(path)
    assert str(caught.value).startswith(f"{path}:{9 if study else 7}: {message}")


def test_trials_of_the_command_line_have_the_limit_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^--trials: must be less than or equal to 100000, got 100001$"):
        load_search(write(tmp_path, LAMBDA)).with_trials(100_001)


STUDY_MISTAKES = {
    "sampler": ("sampler: tp", "unknown value 'tp'; did you mean 'tpe'?"),
    "row": ("row: ELSE", "unknown row 'ELSE'; did you mean 'ELSA'?"),
    "objective": ("objectives: [macs]", "objectives are val, and at most one of macs and throughput"),
    "pruned front": ("{objectives: [val, macs], pruner: median}", "two objectives cannot be pruned"),
    "grid": ("sampler: grid", "a grid needs step or points"),
    "first": ("first: [{ghost_lambda: 4}]", "must be in [0, 3], got 4"),
    "first's name": ("first: [{lambda: 1}]", "unknown parameter 'lambda'; did you mean 'ghost_lambda'?"),
}


@pytest.mark.parametrize(("study", "message"), STUDY_MISTAKES.values(), ids=STUDY_MISTAKES)
def test_a_mistake_in_the_study_is_told(tmp_path: Path, study: str, message: str) -> None:
    text = f"study: {study}\n" if study.startswith("{") else f"study:\n  {study}\n"
    with pytest.raises(SpecError) as caught:
        load_search(write(tmp_path, LAMBDA, text))
    assert message in str(caught.value)


def test_a_search_is_no_experiment(tmp_path: Path) -> None:
    path = write(tmp_path, LAMBDA)
    with pytest.raises(SpecError, match=f"a_search.yaml:6: search: this file is a search: harness search {path}"):
        load_spec(path)


def test_values_stand_in_the_stages_that_are_named(tmp_path: Path) -> None:
    space = read(tmp_path, "ghost_lambda: {low: 0, high: 3, stages: not_last}")
    first, last = find_cell(space, ghost_lambda=1.5).attention
    assert first is not None
    assert last is not None
    assert (first.ghost_lambda, last.aggregation) == (1.5, "weighted_sum")


def test_stages_share_a_value_or_have_their_own(tmp_path: Path) -> None:
    fixed = "aggregation: {value: ghost_head, stages: [1, 2]}\n"
    own = read(tmp_path, fixed + "ghost_gamma: {low: 0.1, high: 3, stages: [1, 2]}")
    shared = read(
        tmp_path, fixed + "ghost_gamma: {low: 0.1, high: 3, stages: all}\nghost_lambda: {value: 1, stages: 1}"
    )
    assert [parameter.name for parameter in own.parameters] == ["ghost_gamma.1", "ghost_gamma.2"]
    assert [parameter.name for parameter in shared.parameters] == ["ghost_gamma"]
    operators = find_cell(own, ghost_gamma__1=0.5, ghost_gamma__2=2.0).operators()
    assert [operator.ghost_gamma for operator in operators] == [0.5, 2]


def test_a_value_of_the_recipe_is_searched(tmp_path: Path) -> None:
    space = read(tmp_path, "training.lr: {low: 1e-3, high: 1, log: true}\nbackbones.swin.mlp_ratio: {low: 2, high: 4}")
    cell = find_cell(space, training__lr=0.5, backbones__swin__mlp_ratio=3.5)
    assert cell.training.lr == 0.5
    assert cell.sizes.model_dump()["mlp_ratio"] == 3.5


def test_choices_may_be_lists(tmp_path: Path) -> None:
    choices = "parameterization: {choices: [[query_key], [query_key, position_bias]], stages: last}"
    space = read(tmp_path, choices)
    (parameter,) = space.parameters
    assert parameter.labels == {
        '["query_key"]': ("query_key",),
        '["query_key", "position_bias"]': ("query_key", "position_bias"),
    }
    operators = find_cell(space, parameterization=("query_key",)).operators()
    assert operators[1].parameterization == ("query_key",)


@pytest.mark.parametrize(
    "dimension",
    ["low: 0, high: 3", "low: 0.01, high: 10, log: true", "low: 1, high: 3, step: 1", "low: 0.3, high: 0.9, step: 0.1"],
    ids=["linear", "log", "step", "decimal step"],
)
@pytest.mark.filterwarnings("error:The distribution is specified")
def test_zero_is_a_point_of_the_space(tmp_path: Path, dimension: str) -> None:
    space = read(tmp_path, f"ghost_gamma: {{{dimension}, zero: true, stages: not_last}}")
    (parameter,) = space.parameters
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = [parameter.suggest(study.ask()) for _ in range(200)]
    low, high = parameter.dimension.ends
    assert 5 <= drawn.count(0.0) <= 80
    assert all(value == 0 or low <= value <= high for value in drawn)
    assert parameter.dimension.step is None or high in drawn
    assert parameter.to_value(parameter.to_sampled(0)) == 0


def test_a_whole_field_is_drawn_in_steps(tmp_path: Path) -> None:
    space = read(tmp_path, "kernel_size: {low: 3, high: 9, step: 2, stages: not_last}")
    (parameter,) = space.parameters
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    assert {parameter.suggest(study.ask()) for _ in range(60)} == {3, 5, 7, 9}
    assert parameter.grid() == [3, 5, 7, 9]


def test_a_point_that_is_no_operator_is_told(tmp_path: Path) -> None:
    space = read(tmp_path, "group_width: {choices: [2, 4], stages: not_last}")
    with pytest.raises(SpecError, match="group_width"):
        find_cell(space, group_width=0)


def test_no_row_has_the_name_of_the_one_that_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, "ghost_lambda: {low: 0, high: 3, stages: not_last}")
    path.write_text(path.read_text().replace("ELSA", WINNER))
    with pytest.raises(SpecError, match=r"a_search.yaml:5: rows.Winner: this is the name of the row"):
        load_search(path)


def test_a_file_is_a_search_by_its_key_whatever_its_name(tmp_path: Path) -> None:
    write(tmp_path, "ghost_lambda: {low: 0, high: 3, stages: not_last}").rename(tmp_path / "rates.yaml")
    (tmp_path / "table_search.yaml").write_text(HEAD.replace("search:\n", ""))
    (tmp_path / "broken.yaml").write_text("[")
    assert list(find_experiments(tmp_path)) == ["broken", "table_search"]
