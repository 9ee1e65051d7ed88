"""The placebo of a table: what it is compared with, and what the table says of it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from harness.commands.checklist import list_paragraphs
from harness.plan import Plan, make_plan
from harness.record import Record, RunStatus
from harness.report.latex import to_latex
from harness.report.markdown import to_markdown
from harness.spec import BetterSpec, ExperimentSpec, RowSpec
from harness.statistics import Family, compare_contrasts
from harness.table import Results, compare_records, make_records, make_results
from harness.table.entry import PLACEBO, PLACEBO_DIFFERS
from harness.table.looks import follow_looks
from harness.table.selection import select_replicates

MakeRecord = Callable[..., Record]

AGAIN = "Swin-T again"


@pytest.fixture
def plan(small_spec: ExperimentSpec) -> Plan:
    rows = {**small_spec.rows, AGAIN: RowSpec(placebo=True)}
    return make_plan(small_spec.model_copy(update={"rows": rows, "claims": (BetterSpec(better=("Net7-N", "Net1")),)}))


@pytest.fixture
def make_placebo(make_record: MakeRecord) -> Callable[..., list[Record]]:
    """Runs of the placebo with these scores."""

    def make(*scores: float) -> list[Record]:
        made = []
        for replicate, score in enumerate(scores):
            record = make_record("Swin-T")
            metrics = {**record.metrics, "test/top1": score}
            made.append(replace(record, row=AGAIN, seed=1000 + replicate, metrics=metrics))
        return made

    return make


def find(results: Results) -> pd.Series:
    return results.frame.set_index("row").loc[AGAIN]


def test_a_placebo_changes_no_number_of_another_row(
    plan: Plan, small_spec: ExperimentSpec, records: list[Record], make_placebo: Callable[..., list[Record]]
) -> None:
    without = make_plan(plan.spec.model_copy(update={"rows": small_spec.rows}))
    before, after = make_results(without, records), make_results(plan, [*records, *make_placebo(70.0, 95.0, 81.0)])
    others = after.frame[after.frame["row"] != AGAIN].reset_index(drop=True)
    pd.testing.assert_frame_equal(others, before.frame)
    pd.testing.assert_frame_equal(after.findings.claims.frame, before.findings.claims.frame)
    assert after.outlook == before.outlook
    assert before.num_tests == after.num_tests == 2
    assert "over the 2 comparisons" in to_markdown(after)


def test_the_replicates_of_a_placebo_are_paired_with_those_of_the_baseline(
    plan: Plan, records: list[Record], make_placebo: Callable[..., list[Record]]
) -> None:
    results = make_results(plan, [*records, *make_placebo(84.1, 84.5, 84.4)])
    row = find(results)
    assert (row["n"], row["seeds"], row["pairs"]) == (3, 3, 3)
    assert row["delta"] == pytest.approx((0.1 + 0.1 + 0.3) / 3)
    scores = {name: own.blocks for name, own in results.replicates.items() if not own.row.is_floor}
    (expected,) = compare_contrasts(scores, [{AGAIN: 1.0, "Swin-T": -1.0}], Family.DUNNETT)
    assert expected is not None
    assert (row["p"], row["holm_p"], row["delta_low"]) == (expected.p, expected.t_p, expected.low)


def test_runs_with_the_seeds_of_the_baseline_are_none_of_a_placebo(plan: Plan, records: list[Record]) -> None:
    results = make_results(plan, records)
    assert (find(results)["n"], find(results)["verdict"]) == (0, "")
    assert "missing" in find(results)["marks"]
    assert "it has no verdict yet" in to_markdown(results)


@pytest.mark.parametrize(
    ("scores", "margin", "verdict", "said"),
    [
        ((84.2, 84.3, 84.0), 0.05, "unresolved", "it is unresolved, as it should be"),
        ((84.2, 84.3, 84.0), 3.0, "equivalent", "it is equivalent, as it should be"),
        ((90.0, 90.4, 90.1), 0.2, "better", "it is better: do not trust this table's verdicts"),
        ((78.0, 78.4, 78.1), 0.2, "worse", "it is worse: do not trust this table's verdicts"),
    ],
    ids=["unresolved", "equivalent", "better", "worse"],
)
def test_every_report_says_whether_the_placebo_is_what_it_should_be(
    plan: Plan,
    records: list[Record],
    make_placebo: Callable[..., list[Record]],
    scores: tuple[float, ...],
    margin: float,
    verdict: str,
    said: str,
) -> None:
    changed = replace(plan, spec=plan.spec.model_copy(update={"margin": margin}))
    results = make_results(changed, [*records, *make_placebo(*scores)])
    assert find(results)["verdict"] == verdict
    assert PLACEBO in find(results)["marks"]
    assert (PLACEBO_DIFFERS in find(results)["marks"]) == (verdict in ("better", "worse"))
    (statistics, _) = list_paragraphs(results).values()
    for report in (to_markdown(results), to_latex(results), " ".join(statistics)):
        assert said in report
        assert "seeds 1000 to 1002" in report


def test_a_placebo_that_lost_runs_resolves_nothing(
    plan: Plan, records: list[Record], make_placebo: Callable[..., list[Record]]
) -> None:
    first, *others = make_placebo(90.0, 90.4, 90.1)
    results = make_results(plan, [*records, replace(first, status=RunStatus.DIVERGED), *others])
    assert find(results)["verdict"] == "unresolved"


def test_records_of_a_placebo_are_compared_as_in_the_table(
    plan: Plan, records: list[Record], make_placebo: Callable[..., list[Record]]
) -> None:
    known = [*records, *make_placebo(84.3, 84.1, 84.9)]
    lines = make_records(plan, known, current={})
    assert list(lines.loc[lines["is_placebo"], "seed"]) == [1000, 1001, 1002]
    table = make_results(plan, known).frame.set_index("row")
    found = compare_records(lines, "Swin-T").set_index("row")
    numbers = ["delta", "delta_low", "pairs", "p", "holm_p", "verdict"]
    assert list(found.index) == ["Net1", "Net7-N", AGAIN]
    pd.testing.assert_frame_equal(found[numbers], table.loc[found.index, numbers])


def test_a_placebo_gets_the_seeds_of_the_baseline_and_is_judged_at_the_last_look(
    plan: Plan, make_record: MakeRecord, make_placebo: Callable[..., list[Record]]
) -> None:
    def score(name: str, *scores: float) -> list[Record]:
        first = make_record(name)
        return [
            replace(first, seed=seed, metrics={**first.metrics, "test/top1": value})
            for seed, value in enumerate(scores)
        ]

    until = make_plan(plan.spec.model_copy(update={"until_resolved": 5, "claims": ()}))
    of_rows = [
        *score("Swin-T", 80.0, 80.3, 79.8, 80.1, 79.9),
        *score("Net1", 70.2, 70.1, 70.0),
        *score("Net7-N", 80.6, 80.9, 80.1, 80.7, 80.6),
    ]
    first = follow_looks(until, select_replicates(until, [*of_rows, *make_placebo(80.1, 80.0, 79.9)], {}))
    assert first.seeds[AGAIN] == first.seeds["Swin-T"] == 5
    assert first.placebo is not None
    assert first.placebo.look.seeds == 3
    assert [run.seed for run in until.runs if run.row == until.placebo and first.needs(run)] == [*range(1000, 1005)]

    results = make_results(until, [*of_rows, *make_placebo(90.1, 90.0, 89.9, 90.4, 90.2)])
    assert results.course is not None
    assert AGAIN not in results.course.rows
    assert (find(results)["verdict"], find(results)["n"]) == ("better", 5)
    alone = make_plan(until.spec.model_copy(update={"rows": {n: r for n, r in until.stated.items() if n != AGAIN}}))
    assert results.course.rows == follow_looks(alone, select_replicates(alone, of_rows, {})).rows


def test_a_placebo_differs_by_chance_alone_as_often_as_its_level_says() -> None:
    generator, differing, tables = np.random.default_rng(3), 0, 400
    for _ in range(tables):
        scores = {f"row {row}": dict(enumerate(generator.normal(0, 1, 5).tolist())) for row in range(9)}
        (found,) = compare_contrasts(scores, [{"row 8": 1.0, "row 0": -1.0}], Family.DUNNETT)
        assert found is not None
        assert found.p is not None
        differing += found.p < 0.05
    assert 0.02 < differing / tables < 0.09
