"""All tests of the claims of a table are one family, and controls of matched size are heard."""

from dataclasses import replace

import pytest

from harness.plan import SkippedRow
from harness.spec import BetterSpec, EarlierSpec, EqualSpec, FasterSpec, OrderSpec, RowSpec
from harness.table import make_results
from harness.table.claims import answer_questions, list_questions
from harness.table.selection import select_replicates
from tests.harness.table.claims.conftest import SCORES

BETTER = BetterSpec(better=("Swin-T", "Net1"))
OTHERS = [
    pytest.param(BetterSpec(better=("Net7-N", "Net1")), id="better"),
    pytest.param(EqualSpec(equal=("Net7-N", "Net1")), id="equal"),
    pytest.param(EarlierSpec(earlier=("Swin-T", "Net1"), epoch=1), id="earlier"),
    pytest.param(FasterSpec(faster=("Swin-T", "Net1"), by="throughput"), id="faster"),
    pytest.param(BetterSpec(better=("Net1", "Swin-T"), matched={"Net1": "Net7-N"}), id="control"),
]


def find_width(frame):
    return frame.loc[0, "delta_high"] - frame.loc[0, "delta_low"]


@pytest.mark.parametrize("other", OTHERS)
def test_every_further_test_widens_the_intervals_of_the_family(judge, other):
    alone, together = judge(BETTER), judge(BETTER, other)
    assert find_width(together) > 1.05 * find_width(alone)
    assert together.loc[0, "p"] >= alone.loc[0, "p"]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(BETTER, id="the same claim"),
        pytest.param(OrderSpec(order=("Swin-T", "Net1")), id="an order of the same rows"),
        pytest.param(FasterSpec(faster=("Swin-T", "Net1"), by="macs"), id="no test"),
        pytest.param(EarlierSpec(earlier=("Swin-T", "Net1"), epoch=50), id="not testable"),
        pytest.param(EqualSpec(equal=("Swin-T", "Linear attention")), id="not trained"),
    ],
)
def test_what_is_asked_twice_or_not_tested_costs_nothing(judge, small_spec, other):
    rows = {**small_spec.rows, "Linear attention": RowSpec(normalization="identity")}
    alone, together = judge(BETTER), judge(BETTER, other, rows=rows)
    assert find_width(together) == find_width(alone)


def test_under_another_quantity_the_correction_is_holms_with_all_tests(claim_plan, score_records):
    p = []
    for others in ((), (EarlierSpec(earlier=("Net1", "Swin-T"), epoch=1),)):
        plan = claim_plan(BETTER, *others)
        rows = {row.row.name: row for row in select_replicates(plan, score_records(), {})}
        first = answer_questions(plan, rows)[list_questions(plan, rows)[0]]
        p.append(first.comparison.p)
    assert p[1] == pytest.approx(2 * p[0], rel=1e-6)


def test_a_row_that_the_recipe_skips_is_not_testable(claim_plan, score_records):
    plan = claim_plan(BETTER, BetterSpec(better=("Net7-N", "Swin-T")))
    skipped = replace(
        plan,
        rows=tuple(row for row in plan.rows if row.name != "Net1"),
        runs=tuple(run for run in plan.runs if run.row.name != "Net1"),
        skipped=(SkippedRow("Net1", "no sizes"),),
    )
    claims = make_results(skipped, score_records()).findings.claims.frame
    assert list(claims["verdict"]) == ["not testable", "supported"]
    assert claims.loc[0, "evidence"] == "Net1: no sizes"


def test_rows_without_runs_are_named(judge, score_records):
    claims = judge(BETTER, records=[record for record in score_records() if record.row == "Swin-T"])
    assert (claims["verdict"].item(), claims["evidence"].item()) == ("not trained", "no run of Net1")


@pytest.mark.parametrize(
    ("rows", "matched", "verdict"),
    [
        pytest.param(("Swin-T", "Net1"), {"Net1": "Net7-N"}, "confounded by size", id="supported, refuted"),
        pytest.param(("Swin-T", "Net7-N"), {"Net7-N": "Net1"}, "confounded by size", id="refuted, supported"),
        pytest.param(("Net7-N", "Net1"), {"Net1": "Swin-T"}, "supported", id="supported twice"),
        pytest.param(("Net1", "Net7-N"), {"Net1": "Swin-T"}, "refuted", id="refuted twice"),
    ],
)
def test_a_control_that_changes_the_verdict_confounds_the_claim(judge, rows, matched, verdict):
    claims = judge(BetterSpec(better=rows, matched=matched))
    assert claims["verdict"].item() == verdict
    ((row, control),) = matched.items()
    assert f"; with {control} for {row}: " in claims["evidence"].item()
    assert claims["evidence"].item().count("Δ ") == 2


def test_a_control_without_runs_changes_no_verdict(judge, score_records):
    claim = BetterSpec(better=("Swin-T", "Net1"), matched={"Net1": "Net7-N"})
    records = score_records({name: SCORES[name] for name in ("Swin-T", "Net1")})
    claims = judge(claim, records=records)
    assert claims["verdict"].item() == "supported"
    assert claims["evidence"].item().endswith("; with Net7-N for Net1: not trained: no run of Net7-N")
