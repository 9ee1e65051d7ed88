"""Seeds until resolved, from records to the table."""

from dataclasses import replace

import pytest

from harness.plan import make_plan
from harness.record import RunStatus
from harness.report.latex import to_latex
from harness.report.markdown import to_markdown
from harness.spec import BetterSpec, EarlierSpec, EqualSpec, FasterSpec, OrderSpec
from harness.statistics import Reason
from harness.table import make_results
from harness.table.looks import follow_looks
from harness.table.selection import select_replicates

SCORES = {
    "Swin-T": [80.0, 80.3, 79.8, 80.1, 79.9],
    "Net1": [70.2, 70.1, 70.0, 70.3, 70.1],
    "Net7-N": [80.6, 80.9, 80.1, 80.7, 80.6],
}


@pytest.fixture
def until(small_spec):
    recipe = small_spec.recipe.model_copy(update={"floor_width": None})
    return small_spec.model_copy(update={"recipe": recipe, "until_resolved": 5, "margin": 0.2})


@pytest.fixture
def make_records(make_record):
    def make(seeds):
        records = []
        for name, scores in SCORES.items():
            first = make_record(name)
            for seed, score in enumerate(scores[: seeds[name]]):
                metrics = {**first.metrics, "test/top1": score}
                records.append(replace(first, seed=seed, metrics=metrics, end_time=first.end_time + seed))
        return records

    return make


def follow(spec, records):
    plan = make_plan(spec)
    return follow_looks(plan, select_replicates(plan, records, {}))


def test_without_runs_every_row_needs_the_first_look(until):
    course = follow(until, [])
    assert set(course.seeds.values()) == {3}
    assert (course.rows, course.last) == ({}, None)


def test_a_look_waits_for_all_runs_of_its_open_rows(until, make_records):
    course = follow(until, make_records({"Swin-T": 3, "Net1": 2, "Net7-N": 3}))
    assert (course.rows, course.last) == ({}, None)


def test_a_proven_row_stops_and_the_baseline_goes_on_with_the_open_one(until, make_records):
    course = follow(until, make_records({"Swin-T": 3, "Net1": 3, "Net7-N": 3}))
    assert course.rows["Net1"].reason == Reason.WORSE
    assert course.rows["Net7-N"].is_open
    assert course.seeds == {"Swin-T": 5, "Net1": 3, "Net7-N": 5}


def test_a_claim_keeps_its_rows_open(until, make_records):
    claims = (
        BetterSpec(better=("Net7-N", "Swin-T"), source="Table 1"),
        BetterSpec(better=("Swin-T", "Net1"), source="Table 1"),
    )
    spec = until.model_copy(update={"claims": claims})
    course = follow(spec, make_records({"Swin-T": 3, "Net1": 3, "Net7-N": 3}))
    assert [decision.reason for decision in course.claims.values()] == [Reason.OPEN, Reason.BETTER]
    results = make_results(make_plan(spec), make_records(dict.fromkeys(SCORES, 5)))
    assert list(results.findings.claims.frame["verdict"]) == ["supported", "supported"]


def test_the_pairs_of_an_order_keep_their_rows_open(until, make_records):
    spec = until.model_copy(update={"claims": (OrderSpec(order=("Net7-N", "Swin-T", "Net1")),)})
    course = follow(spec, make_records({"Swin-T": 3, "Net1": 3, "Net7-N": 3}))
    assert [decision.reason for decision in course.claims.values()] == [Reason.OPEN, Reason.BETTER]
    assert course.seeds == {"Swin-T": 5, "Net1": 3, "Net7-N": 5}
    results = make_results(make_plan(spec), make_records(dict.fromkeys(SCORES, 5)))
    assert list(results.findings.claims.frame["verdict"]) == ["supported"]
    assert "Claims: Net7-N better than Swin-T: better after 5 seeds" in to_markdown(results)


@pytest.mark.parametrize(
    ("within", "reason", "seeds", "verdict"),
    [
        (3.0, Reason.EQUIVALENT, 3, "supported"),
        (0.7, Reason.EXHAUSTED, 5, "undecided"),
        (0.01, Reason.BETTER, 5, "refuted"),
    ],
)
def test_a_claim_of_equality_is_never_futile(until, make_records, within, reason, seeds, verdict):
    spec = until.model_copy(update={"claims": (EqualSpec(equal=("Net7-N", "Swin-T"), within=within),)})
    results = make_results(make_plan(spec), make_records(dict.fromkeys(SCORES, 5)))
    ((decision),) = results.course.claims.values()
    assert (decision.reason, decision.look.seeds) == (reason, seeds)
    assert list(results.findings.claims.frame["verdict"]) == [verdict]


def test_a_claim_that_is_not_testable_keeps_no_row_open(until, make_records):
    spec = until.model_copy(update={"claims": (EarlierSpec(earlier=("Net1", "Swin-T"), epoch=50),)})
    assert follow(spec, make_records({"Swin-T": 3, "Net1": 3, "Net7-N": 3})).claims == {}


def test_claims_of_several_quantities_share_the_error_rate_of_a_look(until, make_records):
    better, faster = BetterSpec(better=("Swin-T", "Net1")), FasterSpec(faster=("Swin-T", "Net1"), by="throughput")
    records = [
        replace(record, metrics={**record.metrics, "train/images_per_second": 400.0 + record.seed})
        for record in make_records(dict.fromkeys(SCORES, 5))
    ]
    decisions = [
        next(iter(follow(until.model_copy(update={"claims": claims}), records).claims.values())).comparison
        for claims in ((better,), (better, faster))
    ]
    assert decisions[1].p == pytest.approx(2 * decisions[0].p, rel=1e-6)


def test_the_table_states_the_rule_and_where_each_row_stopped(until, make_records):
    results = make_results(make_plan(until), make_records(dict.fromkeys(SCORES, 5)))
    frame = results.frame.set_index("row")
    assert dict(frame["n"]) == {"Swin-T": 5, "Net1": 3, "Net7-N": 5}
    assert not any("partial" in marks for marks in frame["marks"])
    text = to_markdown(results)
    assert "each trained with 3 to 5 seeds" in text
    assert "looked at after 3, 5 seeds" in text
    assert "Net1: worse after 3 seeds; Net7-N: better after 5 seeds" in text
    assert "n = 3 to 5" in to_latex(results)


def test_floors_have_the_seeds_of_the_file(small_spec):
    plan = make_plan(small_spec.model_copy(update={"until_resolved": 5}))
    assert {run.row.is_floor for run in plan.runs if run.seed >= small_spec.seeds} == {False}
    assert {run.seed for run in plan.runs if not run.row.is_floor} == {*range(5)}


def test_rows_that_a_bad_outcome_has_thinned_stop(until, make_records):
    records = [
        replace(record, status=RunStatus.DIVERGED) if (record.row, record.seed) == ("Net7-N", 1) else record
        for record in make_records(dict.fromkeys(SCORES, 5))
    ]
    course = follow(until, records)
    assert course.rows["Net7-N"].reason == Reason.THINNED
    assert set(course.seeds.values()) == {3}


def test_rows_of_other_images_are_not_comparable_and_stop(until, make_records):
    records = [
        replace(record, provenance={**record.provenance, "data_digest": "other"}) if record.row == "Net7-N" else record
        for record in make_records(dict.fromkeys(SCORES, 5))
    ]
    assert follow(until, records).rows["Net7-N"].reason == Reason.INCOMPARABLE
