"""Rows that are generated from the parts of a row."""

from pathlib import Path
from typing import Any

import pytest

from harness.cell import Cell
from harness.errors import SpecError
from harness.plan import Plan, SkippedRow, make_plan, select_rows
from harness.reading import load_spec
from harness.rows import list_rows
from harness.spec import AblateSpec, ExperimentSpec, OperatorSpec, RowSpec
from paradigms.config import TERMS

FILE = """\
title: Parts
recipe: smoke
baseline: Swin-T
rows:
  Swin-T: {}
  ELSA: {stages: {not_last: {preset: elsa}}}
ablate: {from: ELSA, remove: each, add: each}
claims:
  - {better: [ELSA, ELSA - ghost head]}
"""

ELSA = "{stages: {not_last: {preset: elsa}}}"


def ablate(spec: ExperimentSpec, baseline: dict[str, Any], row: dict[str, Any], **kinds: str) -> Plan:
    rows = {"A": RowSpec.model_validate(baseline), "B": RowSpec.model_validate(row)}
    asked = AblateSpec.model_validate({"from": "B", **(kinds or {"remove": "each", "add": "each"})})
    return make_plan(spec.model_copy(update={"rows": rows, "ablate": asked}))


def find_cells(plan: Plan) -> dict[str, Cell]:
    return {row.name: row.cell for row in plan.rows}


def plan_by_hand(spec: ExperimentSpec, rows: dict[str, RowSpec]) -> dict[str, str]:
    plan = make_plan(spec.model_copy(update={"rows": {**rows, "A": rows.get("A", RowSpec())}}), is_derived=True)
    return {row.name: row.cell.id for row in plan.rows}


def test_each_part_is_left_out_of_the_row_and_added_to_the_baseline(spec: ExperimentSpec) -> None:
    plan = ablate(spec, {}, {"stages": {"not_last": OperatorSpec(preset="elsa")}})
    found = {name: cell.id for name, cell in find_cells(plan).items()}

    def state(**fields: Any) -> RowSpec:
        return RowSpec(stages={"not_last": OperatorSpec(**fields)})

    expected = {
        "B - hadamard conv": state(preset="elsa", parameterization=("query_key", "position_bias")),
        "B - ghost head": state(preset="elsa", aggregation="weighted_sum"),
        "A + sliding window": state(neighborhood="sliding_window"),
        "A + ghost head": state(aggregation="ghost_head", ghost_lambda=0.0),
    }
    by_hand = plan_by_hand(spec, expected)
    assert {name: found[name] for name in expected} == {name: by_hand[name] for name in expected}
    assert found.keys() == {"A", "B", *expected}
    impossible = "hadamard_conv needs sliding_window with border mask or zero, got local_window, project"
    assert plan.skipped == (
        SkippedRow("B - sliding window", f"is impossible: {impossible}"),
        SkippedRow("A + hadamard conv", f"is impossible: {impossible}"),
    )
    assert list(plan.names) == ["A", "B", *(f"B - {part}" for part in PARTS), *(f"A + {part}" for part in PARTS)]


PARTS = ("hadamard conv", "sliding window", "ghost head")


@pytest.mark.parametrize(
    ("own", "parts"),
    [
        (TERMS, {"query position": ("query_key", "position_key", "position_bias"), "position key": None}),
        (("query_position",), {"no query key": ("query_key", "query_position"), "no position bias": None}),
    ],
    ids=["more terms", "other terms"],
)
def test_a_term_is_a_part(spec: ExperimentSpec, own: tuple[str, ...], parts: dict[str, tuple[str, ...] | None]) -> None:
    cells = find_cells(ablate(spec, {}, {"parameterization": own}, remove="each"))
    assert cells.keys() == {"A", "B", *(f"B - {part}" for part in parts)}
    for part, terms in parts.items():
        if terms is not None:
            (config, *_) = cells[f"B - {part}"].operators()
            assert set(config.parameterization) == set(terms)


def test_a_row_without_any_term_is_skipped(spec: ExperimentSpec) -> None:
    plan = ablate(spec, {}, {"parameterization": ("query_position",)}, remove="each")
    (skipped,) = plan.skipped
    assert skipped.name == "B - query position"
    assert skipped.reason.startswith("is impossible: parameterization needs at least one term")


def test_the_fields_of_a_level_go_and_come_with_it(spec: ExperimentSpec) -> None:
    row = {"neighborhood": "sliding_window", "kernel_size": 3, "aggregation": "ghost_head", "ghost_gamma": 0.5}
    cells = find_cells(ablate(spec, {}, row))
    (config, *_) = cells["B - ghost head"].operators()
    assert (config.kernel_size, config.ghost_gamma, config.aggregation) == (3, 1.0, "weighted_sum")
    (config, *_) = cells["B - sliding window"].operators()
    assert (config.neighborhood, config.kernel_size, config.ghost_gamma) == ("local_window", 7, 0.5)


def test_a_part_of_one_row_may_be_that_of_another_level_in_the_baseline(spec: ExperimentSpec) -> None:
    baseline = {"neighborhood": "sliding_window", "kernel_size": 5, "border": "mask"}
    row = {"neighborhood": "sliding_chunk", "chunk_size": 3, "normalization": "identity", "border": "mask"}
    cells = find_cells(ablate(spec, baseline, row, remove="each"))
    (config, *_) = cells["B - sliding chunk"].operators()
    assert (config.neighborhood, config.kernel_size, config.normalization) == ("sliding_window", 5, "identity")


def test_heads_and_border_are_parts(spec: ExperimentSpec) -> None:
    plan = ablate(spec, {"neighborhood": "sliding_window"}, {"preset": "net6_n", "heads": "2x", "border": "shift"})
    assert {"B - heads 2x", "B - border shift", "A + heads 2x", "A + border shift"} <= find_cells(plan).keys()


def test_a_generated_row_that_another_row_is_already_is_skipped(spec: ExperimentSpec) -> None:
    plan = ablate(spec, {}, {"normalization": "identity"})
    assert find_cells(plan).keys() == {"A", "B"}
    assert set(plan.skipped) == {SkippedRow("B - identity", "is row 'A'"), SkippedRow("A + identity", "is row 'B'")}


def test_a_stated_row_takes_the_place_of_a_generated_one(spec: ExperimentSpec) -> None:
    rows = {
        "A": RowSpec(),
        "B": RowSpec(preset="net7"),
        "B - position key": RowSpec(heads=1, also_changes=("initial_values",)),
    }
    asked = AblateSpec.model_validate({"from": "B", "remove": "each"})
    plan = make_plan(spec.model_copy(update={"rows": rows, "ablate": asked}))
    assert [(row.name, row.also_changes) for row in plan.rows] == [
        *(("A", ()), ("B", ()), ("B - position key", ("initial_values",)), ("B - query position", ()))
    ]


def test_a_generated_row_keeps_the_sizes_and_the_recipes_of_its_row(spec: ExperimentSpec) -> None:
    row = {"preset": "net7", "sizes": {"tiny": {"mlp_ratio": 2.0}}, "under": {"tiny": OperatorSpec(heads=1)}}
    cells = find_cells(ablate(spec, {}, row, remove="each"))
    assert cells["B - position key"].sizes == cells["B"].sizes != cells["A"].sizes
    assert cells["B - position key"].num_heads == cells["B"].num_heads != cells["A"].num_heads


def test_a_generated_row_is_matched_like_its_row(spec: ExperimentSpec, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    match = {"params": "A", "by": "mlp_ratio"}
    small = {"parameterization": ("position_bias",), "heads": 1}
    plan = ablate(spec, {}, {**small, "match": match}, remove="each")
    solved = {row.name: row.solution for row in plan.rows}
    assert solved["B - heads 1"] is not None
    assert solved["B - heads 1"].row == "A"


def test_a_file_may_select_and_claim_generated_rows(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(FILE)
    spec = load_spec(path)
    assert list(list_rows(spec))[:2] == ["Swin-T", "ELSA"]
    plan = make_plan(spec)
    assert [row.name for row in select_rows(plan, ["ELSA - ghost head"]).rows] == ["ELSA - ghost head"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("from: ELSA,", "from: ELSE,", "mine.yaml:7: ablate: unknown row 'ELSE'; did you mean 'ELSA'?"),
        ("from: ELSA,", "", "mine.yaml:7: ablate.from: this key is missing"),
        ("from: ELSA,", "form: ELSA,", "mine.yaml:7: ablate.form: unknown key 'form'; did you mean 'from'?"),
        ("remove: each", "remove: all", "mine.yaml:7: ablate.remove: unknown value 'all'"),
        (", remove: each, add: each", "", "mine.yaml:7: ablate: needs remove: each, add: each or both"),
        ("from: ELSA,", "from: Swin-T,", "mine.yaml:7: ablate: 'Swin-T' is the baseline, which has no parts"),
        (ELSA, "{sizes: {smoke: {mlp_ratio: 3}}}", "mine.yaml:7: ablate: 'ELSA' has no part"),
        (ELSA, "{backbone: deit}", "mine.yaml:7: ablate: 'ELSA' has another backbone"),
        (ELSA, "{placebo: true}", "mine.yaml:7: ablate: 'ELSA' is the baseline again"),
        (ELSA, "{init_from: Swin-T, heads: 1}", "mine.yaml:7: ablate: 'ELSA' starts from"),
        ("ELSA - ghost head", "ELSA - ghost hat", "mine.yaml:9: claims.0.better.1: unknown row 'ELSA - ghost hat'"),
        ("baseline: Swin-T", "baseline: Swin", "mine.yaml:3: baseline: unknown row 'Swin'; did you mean 'Swin-T'?"),
    ],
)
def test_what_cannot_be_ablated_is_told_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    assert old in FILE
    path.write_text(FILE.replace(old, new))
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert any(line.startswith(message) for line in str(caught.value).replace(f"{tmp_path}/", "").splitlines())
