from dataclasses import replace

import pandas as pd
import pytest

from harness.attestation import ATTESTED, UNATTESTED
from harness.plan import make_plan
from harness.record import EpochMetrics, RunStatus
from harness.report.summary import to_notes
from harness.report.terminal import to_text
from harness.spec import OutcomeSpec
from harness.statistics import Comparison, compare, holm
from harness.table import list_columns, make_results
from harness.table.comparison import Judged
from harness.table.entry import ALSO_CHANGES, DISPUTED, OWN_VARIANCE, list_test_marks


@pytest.fixture
def frame(small_plan, records):
    return make_results(small_plan, records).frame.set_index("row")


def test_the_columns_have_a_fixed_order(small_plan, records):
    columns = list_columns(small_plan.spec)
    assert tuple(make_results(small_plan, records).frame.columns) == columns
    assert columns[:7] == ("row", "top1_mean", "top1_std", "delta", "delta_low", "delta_high", "verdict")
    assert columns[-1] == "last_run"


def test_without_any_record_every_row_stands_empty(small_plan):
    frame = make_results(small_plan, []).frame
    assert list(frame["row"]) == ["Swin-T", "Net1", "Net7-N", "Linear classifier", "One hidden layer"]
    assert set(frame["n"]) == {0}
    assert set(frame["marks"]) == {("missing",)}
    assert frame[["top1_mean", "delta", "params"]].isna().all(axis=None)


def test_types_do_not_depend_on_what_has_run(small_plan, records):
    assert (make_results(small_plan, []).frame.dtypes == make_results(small_plan, records).frame.dtypes).all()


def test_sizes_stand_in_for_rows_without_a_run(small_plan):
    sizes = {row.cell.id: (1000 * (number + 1), 5) for number, row in enumerate(small_plan.rows)}
    frame = make_results(small_plan, [], sizes=sizes).frame
    assert list(frame["params"]) == [1000, 2000, 3000, 4000, 5000]
    assert list(frame["params_factor"]) == [1, 2, 3, 4, 5]
    assert set(frame["macs"]) == {5}


def test_a_row_has_mean_and_spread_over_its_seeds(frame):
    assert frame.loc["Net1", "n"] == 3
    assert frame.loc["Net1", "top1_mean"] == pytest.approx(83.2)
    assert frame.loc["Net1", "top1_std"] == pytest.approx(0.264575)
    assert frame.loc["Net7-N", "params_factor"] == pytest.approx(1.65, abs=0.001)


def test_rows_are_compared_with_the_baseline_under_one_error_model(small_plan, records):
    results = make_results(small_plan, records)
    scores = {name: row.scores for name, row in results.replicates.items() if not row.row.is_floor}
    expected, found = compare(scores, "Swin-T")["Net1"], results.frame.set_index("row").loc["Net1"]
    assert (found["delta"], found["delta_low"], found["delta_high"]) == (expected.delta, *expected.interval)
    assert list(found[["p", "t_p", "sign_flip_p"]]) == [expected.p, expected.t_p, expected.sign_flip_p]
    assert (found["standard_error"], found["df"]) == (expected.error, expected.df)


def test_a_verdict_that_the_paired_t_test_would_not_give_is_marked(small_plan, records):
    def move(record):
        noise = {0: 0.4, 1: -0.2, 2: 0.1}[record.seed] if record.row == "Net1" else 0.0
        return replace(record, metrics={**record.metrics, "test/top1": record.metrics["test/top1"] + noise})

    results = make_results(small_plan, [move(record) for record in records])
    row = results.frame.set_index("row").loc["Net1"]
    assert row["p"] < 0.05 < row["holm_p"]
    assert DISPUTED in row["marks"]
    assert any(DISPUTED in note for note in to_notes(results))


def test_a_row_that_is_judged_by_its_own_spread_is_marked():
    comparison = Comparison(3, 0.5, 0.1, 0.9, p=0.01, holm_p=0.01, has_own_variance=True)
    assert list(list_test_marks(Judged(comparison, "better"))) == [OWN_VARIANCE]


def test_a_row_within_the_margin_is_equivalent(small_spec, records):
    plan = make_plan(small_spec.model_copy(update={"margin": 5.0}))
    results = make_results(plan, records)
    assert results.frame.set_index("row").loc["Net7-N", "verdict"] == "equivalent"
    assert any("equivalent where its interval lies within ±5" in note for note in to_notes(results))


def test_the_notes_say_what_the_seeds_could_find_and_what_would_settle_the_rest(small_plan, records):
    results = make_results(small_plan, records)
    text = "\n".join(to_notes(results))
    assert f"detect a difference of {results.outlook.detectable:.2f} with 80 % power" in text
    assert f"Net7-N {results.outlook.seeds['Net7-N']}" in text
    assert f"Variance of paired differences over that of unpaired ones: {results.outlook.variance_ratio:.2f}" in text


def test_holm_goes_over_the_rows_that_are_compared(frame):
    assert list(frame["holm_p"].dropna()) == holm(list(frame["t_p"].dropna()))
    assert list(frame["verdict"]) == ["", "worse", "unresolved", "", ""]


def test_floors_and_the_baseline_have_no_comparison(frame):
    assert frame.loc[["Swin-T", "Linear classifier", "One hidden layer"], "delta"].isna().all()


def test_one_seed_has_no_verdict(small_spec, records):
    plan = make_plan(small_spec.model_copy(update={"seeds": 1}))
    frame = make_results(plan, records).frame.set_index("row")
    assert frame.loc["Net1", "delta"] == -1.0
    assert pd.isna(frame.loc["Net1", "delta_low"])
    assert frame.loc["Net1", "verdict"] == ""


@pytest.mark.parametrize("thinned", ["Net1", "Swin-T"], ids=["row", "baseline"])
def test_what_a_bad_outcome_has_thinned_out_is_unresolved(small_plan, records, make_record, thinned):
    kept = [record for record in records if (record.row, record.seed) != (thinned, 1)]
    diverged = make_record(thinned, 1, RunStatus.DIVERGED, step=412, metrics={})
    frame = make_results(small_plan, [*kept, diverged]).frame.set_index("row")
    assert (frame.loc[thinned, "n"], frame.loc[thinned, "outcomes"]) == (2, (("diverged", 412),))
    assert frame.loc["Net1", "pairs"] == 2
    assert frame.loc["Net1", "verdict"] == "unresolved"


def test_bad_outcomes_are_counted(small_plan, make_record):
    statuses = [RunStatus.DIVERGED, RunStatus.DIVERGED, RunStatus.OUT_OF_MEMORY]
    steps = [412, 398, None]
    bad = [make_record("Net1", seed, statuses[seed], step=steps[seed]) for seed in range(3)]
    bugs = [make_record("Net7-N", seed, RunStatus.FAILED) for seed in range(2)]
    frame = make_results(small_plan, [*bad, *bugs]).frame.set_index("row")
    assert frame.loc["Net1", "outcomes"] == (("diverged", 412), ("diverged", 398), ("out_of_memory", None))
    assert frame.loc["Net1", "marks"] == ()
    assert frame.loc["Net7-N", "outcomes"] == (("failed", None),) * 2
    assert frame.loc["Net7-N", "marks"] == ("partial",)


def test_rows_of_different_data_are_not_compared(small_plan, records):
    def move(record):
        return replace(record, provenance={**record.provenance, "data_digest": "other"})

    frame = make_results(small_plan, [move(r) if r.row == "Net1" else r for r in records]).frame.set_index("row")
    assert pd.isna(frame.loc["Net1", "delta"])
    assert frame.loc["Net1", "top1_mean"] == pytest.approx(83.2)


def test_rows_of_two_environments_have_no_verdict_and_equal_mixes_are_marked(small_plan, records):
    def move(record):
        return replace(record, provenance={**record.provenance, "torch": "2.0.0"})

    one = make_results(small_plan, [move(r) if r.row == "Net1" else r for r in records]).frame.set_index("row")
    assert pd.isna(one.loc["Net1", "delta"])
    assert one.loc["Net1", "verdict"] == ""
    assert {name for name, marks in one["marks"].items() if "other environment" in marks} == {"Net1"}

    both = make_results(small_plan, [move(r) if r.seed == 0 else r for r in records]).frame.set_index("row")
    assert not pd.isna(both.loc["Net1", "delta"])
    assert all("mixed environments" in marks for marks in both["marks"])


def test_a_stale_row_is_marked(small_plan, records):
    current = {row.cell.id: ("c0de", "da7a") for row in small_plan.rows}
    current[small_plan.rows[1].cell.id] = ("changed", "da7a")
    frame = make_results(small_plan, records, current=current).frame.set_index("row")
    assert [name for name, marks in frame["marks"].items() if "stale" in marks] == ["Net1"]


def test_a_row_of_older_code_that_stands_is_marked_with_its_reason(small_plan, records):
    def mark(record, **provenance):
        return replace(record, provenance={**record.provenance, **provenance})

    changes = {"Net1": {ATTESTED: "older"}, "Net7-N": {UNATTESTED: "made with torch 2.8"}}
    results = make_results(small_plan, [mark(record, **changes.get(record.row, {})) for record in records])
    marks = results.frame.set_index("row")["marks"]
    assert {name: set(own) & {ATTESTED, UNATTESTED} for name, own in marks.items() if name in changes} == {
        "Net1": {ATTESTED},
        "Net7-N": {UNATTESTED},
    }
    assert not {ATTESTED, UNATTESTED} & set(marks["Swin-T"])
    assert "Net7-N: made with torch 2.8." in list(to_notes(results))


def test_a_declared_difference_is_a_mark_and_a_footnote(small_plan, records):
    declared = small_plan.spec.rows["Net1"].model_copy(update={"also_changes": ("training.lr",)})
    rows = {**small_plan.spec.rows, "Net1": declared}
    results = make_results(make_plan(small_plan.spec.model_copy(update={"rows": rows})), records)
    marks = results.frame.set_index("row")["marks"]
    assert [name for name, own in marks.items() if ALSO_CHANGES in own] == ["Net1"]
    assert "Net1 also changes training.lr." in list(to_notes(results))


def test_a_row_that_still_climbs_is_marked(small_plan, make_record):
    curve = tuple(EpochMetrics(epoch, epoch, {"val/top1": 10.0 * epoch}) for epoch in range(1, 9))
    climbing = [make_record("Net1", seed, curve=curve) for seed in range(3)]
    assert make_results(small_plan, climbing).frame.set_index("row").loc["Net1", "marks"] == ("under-trained",)


def test_a_row_at_the_ceiling_is_marked(small_plan, make_record):
    metrics = {"test/top1": 99.99, "test/images": 10_000.0}
    perfect = [make_record("Net1", seed, metrics=metrics) for seed in range(3)]
    assert make_results(small_plan, perfect).frame.set_index("row").loc["Net1", "marks"] == ("at the ceiling",)


def test_the_papers_numbers_stand_beside(frame):
    assert frame.loc["Net1", "published_top1"] == 80.1
    assert frame.loc["Net1", "published_delta"] == pytest.approx(-1.2)
    assert frame.loc["Swin-T", "published_quoted"]
    assert pd.isna(frame.loc["Net7-N", "published_top1"])


def test_the_outcome_that_the_paper_reports_stands_in_the_notes_of_the_row(small_plan, records):
    claim = OutcomeSpec(outcome=("Net1",), status="diverged")
    results = make_results(replace(small_plan, spec=small_plan.spec.model_copy(update={"claims": (claim,)})), records)
    assert list(results.frame["expected"]) == ["", "diverged", "", "", ""]
    (noted,) = [line for line in to_text(results).splitlines() if "paper: diverged" in line]
    assert noted.startswith("Net1 ")


def test_every_row_carries_where_it_comes_from(frame):
    origin = frame.loc["Net1", ["experiment", "recipe", "code_digest", "data_digest", "commit", "torch", "device"]]
    assert list(origin) == ["small", "tiny", ("c0de",), ("da7a",), ("8c1f0e2",), ("2.14.1",), ("AMD EPYC",)]
    assert frame.loc["Net1", "last_run"] == pd.Timestamp("2026-11-18 11:06:42", tz="UTC")


def test_a_stale_row_is_not_compared_with_a_fresh_baseline(small_plan, records):
    changed = {row.cell.id: ("f00d" if row.name == "Net1" else "c0de", "da7a") for row in small_plan.rows}
    frame = make_results(small_plan, records, current=changed).frame.set_index("row")
    assert frame.loc["Net1", "verdict"] == ""
    assert frame.loc["Net7-N", "verdict"] != ""
