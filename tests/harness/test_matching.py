"""Sizes that the plan solves: the nearest value, refusals with their lines, and the cache."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import costs, matching
from harness.errors import SpecError
from harness.matching import find_nearest
from harness.plan import Plan, SkippedRow, make_plan
from harness.reading import load_spec
from harness.redundancy import differ_by_recipe
from harness.spec import BackbonesSpec, ExperimentSpec, MatchSpec, RowSpec

FILE = """\
title: Equal sizes
recipe: smoke
baseline: A
rows:
  A: {}
  B: {parameterization: [position_bias], match: {params: A, by: mlp_ratio}}
"""

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of each test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "elsa-ablation" / "matched"


def plan_rows(spec: ExperimentSpec, rows: dict[str, dict[str, Any]], **update: object) -> Plan:
    made = {name: RowSpec.model_validate(row) for name, row in rows.items()}
    return make_plan(spec.model_copy(update={"rows": made, **update}))


def fail(folder: Path, old: str, new: str, recipe: str | None = None) -> list[str]:
    path = folder / "mine.yaml"
    assert old in FILE
    path.write_text(FILE.replace(old, new))
    with pytest.raises(SpecError) as caught:
        make_plan(load_spec(path, recipe=recipe))
    return str(caught.value).replace(f"{folder}/", "").splitlines()


@pytest.mark.parametrize("seed", range(40))
def test_the_nearest_value_is_found_whatever_the_steps(seed: int) -> None:
    generator = np.random.default_rng(seed)
    size = int(generator.integers(2, 300))
    costs = np.cumsum(generator.integers(0, 4, size) * generator.integers(1, 50) + (generator.random(size) < 0.5)) + 1
    possible = {1, *(np.flatnonzero(generator.random(size) < 0.7) + 1)}
    start, target = int(generator.choice(sorted(possible))), int(generator.integers(1, costs[-1] + 20))

    def count(steps: int) -> int | None:
        return int(costs[steps - 1]) if steps in possible else None

    below = [(steps, count(steps)) for steps in sorted(possible) if costs[steps - 1] < target][-1:]
    above = [(steps, count(steps)) for steps in sorted(possible) if costs[steps - 1] >= target][:1]
    try:
        found = find_nearest(count, start, target)
    except ValueError:
        assert min(np.diff(costs)) == 0  # a plateau as long as a doubling or halving
    else:
        assert found == min([*below, *above], key=lambda end: abs(end[1] - target))


@pytest.mark.parametrize("count", [lambda _: 100, lambda steps: 1000 // steps], ids=["constant", "falling"])
def test_a_cost_that_does_not_grow_is_refused(count: Callable[[int], int]) -> None:
    with pytest.raises(ValueError, match="at two values"):
        find_nearest(count, 10, 200)


@pytest.mark.parametrize("measure", ["params", "macs"])
def test_a_solved_row_costs_as_much_and_is_the_cell_that_states_the_value(spec: ExperimentSpec, measure: str) -> None:
    stated = {"parameterization": ("query_key", "query_position")}
    plan = plan_rows(spec, {"A": {}, "B": {**stated, "match": {measure: "A", "by": "mlp_ratio"}}})
    baseline, row = plan.rows
    solution = row.solution
    assert solution is not None
    assert (solution.row, solution.measure, solution.by) == ("A", measure, "mlp_ratio")
    assert (solution.cost, solution.target) == tuple(costs.count_cost(each.cell, measure) for each in (row, baseline))
    assert abs(solution.difference) <= matching.MAX_DIFFERENCE
    assert solution.value != spec.recipe.backbones.swin.mlp_ratio  # type: ignore[union-attr]
    by_hand = plan_rows(spec, {"A": {}, "B": {**stated, "sizes": {"tiny": {"mlp_ratio": solution.value}}}})
    assert by_hand.rows[1].cell == row.cell
    assert by_hand.rows[1].cell.id == row.cell.id
    for other in (solution.value - 0.01, solution.value + 0.01):
        changed = plan_rows(spec, {"A": {}, "B": {**stated, "sizes": {"tiny": {"mlp_ratio": round(other, 2)}}}})
        assert abs(costs.count_cost(changed.rows[1].cell, measure) / solution.target - 1) >= abs(solution.difference)


def test_a_whole_number_stays_one_and_skips_what_the_heads_do_not_divide(spec: ExperimentSpec) -> None:
    wide = {"tiny": {"embed_dim": 60}}
    plan = plan_rows(
        spec, {"A": {"sizes": wide}, "B": {"heads": (3, 6, 12), "match": {"params": "A", "by": "embed_dim"}}}
    )
    solution = plan.rows[1].solution
    assert solution is not None
    assert isinstance(solution.value, int)
    assert solution.value == 60


def test_the_depth_of_a_deit_is_solved(spec: ExperimentSpec) -> None:
    deep = {"backbone": "deit", "sizes": {"tiny": {"depth": 9}}}
    plan = plan_rows(spec, {"A": deep, "B": {"backbone": "deit", "heads": 1, "match": {"params": "A", "by": "depth"}}})
    assert plan.rows[1].solution is not None
    assert (plan.rows[1].solution.value, plan.rows[1].solution.difference) == (9, 0)


def test_a_row_may_be_matched_with_a_matched_one_or_with_the_placebo(spec: ExperimentSpec) -> None:
    rows = {
        "C": {"parameterization": ("position_bias",), "match": {"params": "B", "by": "mlp_ratio"}},
        "B": {"parameterization": ("query_key", "query_position"), "match": {"params": "Again", "by": "mlp_ratio"}},
        "A": {},
        "Again": {"placebo": True},
    }
    planned = {row.name: row for row in plan_rows(spec, rows).rows}
    assert planned["C"].solution is not None
    assert planned["C"].solution.target == costs.count_cost(planned["B"].cell, "params")
    assert planned["B"].solution is not None
    assert planned["B"].solution.target == costs.count_cost(planned["A"].cell, "params")


def test_a_matched_baseline_has_a_placebo(spec: ExperimentSpec) -> None:
    rows = {"B": {}, "A": {"heads": 1, "match": {"params": "B", "by": "mlp_ratio"}}, "Again": {"placebo": True}}
    planned = {row.name: row for row in plan_rows(spec, rows).rows}
    assert planned["Again"].cell.id == planned["A"].cell.id


def test_a_finetuned_row_has_the_size_that_was_solved_from_scratch(spec: ExperimentSpec) -> None:
    recipe = spec.recipe.model_copy(update={"name": "finetune", "init_recipe": spec.recipe})
    rows = {
        "A": {},
        "B": {"parameterization": ("query_key", "query_position"), "match": {"macs": "A", "by": "mlp_ratio"}},
        "B larger": {"init_from": "B", "image_size": 56},
    }
    trained, (larger,) = plan_rows(spec, rows), plan_rows(spec, rows, recipe=recipe).rows
    assert larger.cell.sizes == trained.rows[1].cell.sizes
    assert larger.cell.init_from is not None
    assert larger.cell.init_from.identity == trained.rows[1].cell.id


def test_a_row_is_skipped_where_the_recipe_does_not_train_the_named_one(spec: ExperimentSpec) -> None:
    swin = spec.recipe.model_copy(update={"backbones": BackbonesSpec(swin=spec.recipe.backbones.swin)})
    rows = {"A": {}, "V": {"backbone": "volo"}, "B": {"heads": 1, "match": {"params": "V", "by": "mlp_ratio"}}}
    plan = plan_rows(spec, rows, recipe=swin)
    assert [row.name for row in plan.rows] == ["A"]
    assert SkippedRow("B", "cannot be matched with 'V' under recipe 'tiny'") in plan.skipped


def test_rows_that_are_solved_to_one_cell_are_shown_once() -> None:
    first, second = (RowSpec(match=MatchSpec.model_validate({key: "A", "by": "depth"})) for key in ("params", "macs"))
    assert differ_by_recipe(first, second)


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ("{params: a, by: mlp_ratio}", "mine.yaml:6: rows.B.match.params: unknown row 'a' (known: A, B)"),
        (
            "{macs: Linear classifier, by: mlp_ratio}",
            "mine.yaml:6: rows.B.match.macs: 'Linear classifier' is a floor, a model without attention; name a row",
        ),
        (
            "{macs: A, by: mlp_ratio}}\n  C: {match: {macs: D, by: mlp_ratio}}\n  D: {init_from: A",
            "mine.yaml:7: rows.C.match.macs: 'D' starts from weights; name a row that is trained from scratch",
        ),
        ("{params: B, by: mlp_ratio}", "mine.yaml:6: rows.B.match.params: rows are matched in a circle: 'B' with 'B'"),
        (
            "{params: A, by: mlp_rate}",
            "mine.yaml:6: rows.B.match.by: unknown numeric size of a Swin 'mlp_rate'; did you mean 'mlp_ratio'?",
        ),
        ("{params: A, by: depths}", "mine.yaml:6: rows.B.match.by: unknown numeric size of a Swin 'depths'"),
        ("{params: A, by: qkv_bias}", "mine.yaml:6: rows.B.match.by: unknown numeric size of a Swin 'qkv_bias'"),
        ("{by: mlp_ratio}", "mine.yaml:6: rows.B.match: needs either params or macs, the row that it is matched with"),
        ("{params: A, macs: A, by: mlp_ratio}", "mine.yaml:6: rows.B.match: needs either params or macs"),
        ("{params: A}", "mine.yaml:6: rows.B.match.by: this key is missing"),
        ("{params: A, by: mlp_ratio, to: 1}", "mine.yaml:6: rows.B.match.to: unknown key 'to'"),
        (
            "{params: A, by: drop_path_rate}",
            "mine.yaml:6: rows.B.match: the parameters do not grow with drop_path_rate: it is 5,702 and 5,702",
        ),
        (
            "{params: A, by: embed_dim}",
            "mine.yaml:6: rows.B.match: no embed_dim was found within 0.5 % of the 6,534 parameters of 'A': "
            "the nearest is 9 with 6,941, +6.23 %",
        ),
    ],
)
def test_what_cannot_be_matched_is_told_with_its_line(tmp_path: Path, match: str, message: str) -> None:
    (found,) = fail(tmp_path, "{params: A, by: mlp_ratio}", match)
    assert found.startswith(message)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    stated = "{params: A, by: mlp_ratio}, sizes: {smoke: {mlp_ratio: 3}}}"
    more = f"{stated}\n  C: {{match: {{params: D, by: depths}}, init_from: A"
    found = fail(tmp_path, "{params: A, by: mlp_ratio}", more)
    assert [line.split(": ")[:2] for line in found] == [
        ["mine.yaml:6", "rows.B.sizes.smoke.mlp_ratio"],
        *(["mine.yaml:7", f"rows.C.match{key}"] for key in (".params", "", ".by")),
    ]


def test_a_baseline_cannot_be_matched_with_its_placebo(tmp_path: Path) -> None:
    placebo = "{params: A, by: mlp_ratio}}\n  Again: {placebo: true"
    path = tmp_path / "mine.yaml"
    path.write_text(
        FILE.replace("{params: A, by: mlp_ratio}", placebo).replace("A: {}", "A: {match: {macs: Again, by: depth}}")
    )
    with pytest.raises(SpecError, match=r"rows\.A\.match\.macs: rows are matched in a circle: 'A' with 'A'"):
        make_plan(load_spec(path))


def test_a_circle_of_two_rows_is_told_for_both(tmp_path: Path) -> None:
    circle = "{params: C, by: mlp_ratio}}\n  C: {heads: 1, match: {params: B, by: mlp_ratio}"
    first, second = fail(tmp_path, "{params: A, by: mlp_ratio}", circle)
    assert first.endswith("rows.B.match.params: rows are matched in a circle: 'B' with 'C' with 'B'")
    assert second.endswith("rows.C.match.params: rows are matched in a circle: 'C' with 'B' with 'C'")


ROWS: dict[str, dict[str, Any]] = {
    "A": {},
    "B": {"parameterization": ("position_bias",), "match": {"params": "A", "by": "mlp_ratio"}},
}


def test_what_is_solved_once_is_read_from_the_cache(
    spec: ExperimentSpec, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plan_rows(spec, ROWS)
    (file,) = cache.iterdir()
    monkeypatch.setattr(costs, "count_cost", None)
    assert plan_rows(spec, ROWS) == first
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
    file.write_text("[1, 2")
    assert plan_rows(spec, ROWS) == first


def test_a_cache_that_cannot_be_written_is_no_error(spec: ExperimentSpec, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert plan_rows(spec, ROWS).rows[1].solution is not None


PLAN = """
import sys
from harness.plan import make_plan
from harness.reading import load_spec

make_plan(load_spec(sys.argv[1]))
print("torch" in sys.modules)
"""


@pytest.mark.slow
def test_a_plan_imports_torch_only_to_solve(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"

    def plan(text: str) -> str:
        path.write_text(text)
        command = [sys.executable, "-c", PLAN, str(path)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    without = FILE.replace(", match: {params: A, by: mlp_ratio}", "")
    assert [plan(text) for text in (without, FILE, FILE)] == ["False", "True", "False"]
