from dataclasses import replace

import pandas as pd
import pytest

from harness.plan import Plan, SkippedRow, make_plan
from harness.record import Record, RunStatus
from harness.report.markdown import to_markdown
from harness.report.table import write_table
from harness.report.terminal import to_text
from harness.spec import BetterSpec, FactorsSpec, PublishedSpec, RowSpec
from harness.statistics import Family, compare_contrasts
from harness.table import make_results


def claim(small_spec, *pairs):
    claims = tuple(BetterSpec(better=pair, source="Table 1") for pair in pairs)
    return make_plan(small_spec.model_copy(update={"claims": claims}))


def test_a_claim_is_judged_with_the_error_of_all_rows(small_spec, records):
    plan = claim(small_spec, ("Swin-T", "Net1"), ("Net1", "Swin-T"), ("Net7-N", "Swin-T"))
    claims = make_results(plan, records).findings.claims.frame
    assert list(claims.columns) == ["claim", "source", "evidence", *COMPARED]
    assert claims.loc[0, "claim"] == "Swin-T better than Net1"
    assert list(claims["verdict"]) == ["supported", "refuted", "undecided"]
    results = make_results(plan, records)
    scores = {name: row.blocks for name, row in results.replicates.items() if not row.row.is_floor}
    contrasts = [{"Swin-T": 1.0, "Net1": -1.0}, {"Net1": 1.0, "Swin-T": -1.0}, {"Net7-N": 1.0, "Swin-T": -1.0}]
    first, *_ = compare_contrasts(scores, contrasts, Family.HOLM)
    assert (claims.loc[0, "delta"], claims.loc[0, "delta_low"], claims.loc[0, "p"]) == (first.delta, first.low, first.p)
    assert claims.loc[0, "holm_p"] == pytest.approx(3 * claims.loc[0, "t_p"])


@pytest.mark.parametrize(
    ("spoil", "verdict"),
    [
        pytest.param({"status": RunStatus.DIVERGED}, "undecided", id="a bad outcome"),
        pytest.param({"provenance": {"code_digest": "c0de", "data_digest": "other"}}, "", id="other data"),
    ],
)
def test_what_cannot_be_compared_resolves_no_claim(small_spec, records, spoil, verdict):
    changed = [replace(record, **spoil) if (record.row, record.seed) == ("Net1", 2) else record for record in records]
    if "provenance" in spoil:
        changed = [replace(record, **spoil) if record.row == "Net1" else record for record in records]
    claims = make_results(claim(small_spec, ("Swin-T", "Net1")), changed).findings.claims.frame
    assert list(claims["verdict"]) == [verdict]


def test_a_claim_without_runs_is_not_trained(small_spec):
    claims = make_results(claim(small_spec, ("Swin-T", "Net1")), []).findings.claims.frame
    assert (list(claims["pairs"]), list(claims["verdict"])) == ([0], ["not trained"])


def test_of_one_seed_no_claim_has_a_verdict(small_spec, records):
    first = [record for record in records if record.seed == 0]
    claims = make_results(claim(small_spec, ("Swin-T", "Net1")), first).findings.claims.frame
    assert (list(claims["pairs"]), list(claims["verdict"])) == ([1], [""])


TESTED = ["standard_error", "df", "p", "t_p", "holm_p", "sign_flip_p"]
COMPARED = ["pairs", "delta", "delta_low", "delta_high", *TESTED, "verdict"]

GAINS = {"query_key": 1.0, "identity": -2.0}


@pytest.fixture
def factorial(small_spec):
    factors = FactorsSpec(
        parameterization="subsets",
        normalization=("softmax", "filter_norm", "identity"),
        neighborhood=("local_window", "sliding_window"),
    )
    update = {"rows": {}, "factors": factors, "baseline": "query_key, softmax, local_window", "published": {}}
    return make_plan(small_spec.model_copy(update=update))


def make_records(plan):
    """Every replicate of every combination: `GAINS`, and noise that differs by seed alone in what query_key adds."""
    noise = {0: 0.01, 1: -0.01, 2: 0.02}
    return [
        Record(
            run.row.cell.id,
            run.row.name,
            run.seed,
            RunStatus.OK,
            metrics={
                "test/top1": 80.0
                + sum(gain * (1 + noise[run.seed]) for name, gain in GAINS.items() if name in run.row.cell.levels())
            },
        )
        for run in plan.runs
        if not run.row.is_floor
    ]


def test_all_subsets_make_four_factors_of_terms(factorial):
    effects = make_results(factorial, make_records(factorial)).findings.effects.frame
    assert list(effects.columns) == ["effect", "factors", *COMPARED]
    assert len(effects) == 4 + 2 + 1 + 6 + 8 + 4 + 2
    assert list(effects["effect"])[:7] == [
        *("query_key", "query_position", "position_key", "position_bias"),
        *("filter_norm vs softmax", "identity vs softmax", "sliding_window vs local_window"),
    ]
    assert "query_key × position_bias" in set(effects["effect"])
    assert ("normalization", "neighborhood") in set(effects["factors"])


def test_effects_are_found_with_their_intervals_over_seeds(factorial):
    effects = make_results(factorial, make_records(factorial)).findings.effects.frame.set_index("effect")
    found = effects.loc["query_key"]
    assert (found["delta"], found["pairs"], found["verdict"]) == (pytest.approx(1.0067, abs=1e-4), 3, "raises")
    assert found["delta_low"] < found["delta"] < found["delta_high"]
    assert effects.loc["identity vs softmax", "verdict"] == "lowers"
    others = effects.drop(["query_key", "identity vs softmax"])
    assert others["delta"].to_numpy() == pytest.approx(0, abs=1e-9)
    assert set(others["verdict"]) == {"unresolved"}


def test_combinations_with_bad_outcomes_are_left_out_and_named(factorial):
    records = [
        replace(record, status=RunStatus.DIVERGED, metrics={}) if "identity" in record.row else record
        for record in make_records(factorial)
    ]
    findings = make_results(factorial, records).findings
    effects = findings.effects.frame.set_index("effect")
    assert len(findings.left_out) == 30
    assert "query_key, identity, local_window" in findings.left_out
    assert effects.loc["identity vs softmax", "verdict"] == ""
    assert effects.loc["filter_norm vs softmax", "delta"] == pytest.approx(0, abs=1e-9)
    markdown = to_markdown(make_results(factorial, records))
    assert (
        "The effects leave out, for a bad outcome or older code or data: query_key, identity, local_window" in markdown
    )


def test_a_seed_that_some_row_lacks_is_in_no_effect(factorial):
    effects = make_results(factorial, make_records(factorial)[:-1]).findings.effects.frame
    assert set(effects["pairs"]) == {2}


def test_lists_of_terms_are_one_factor(small_spec):
    factors = FactorsSpec(parameterization=(("query_key",), ("query_key", "position_bias")), normalization=("softmax",))
    plan = make_plan(small_spec.model_copy(update={"factors": factors}), is_derived=True)
    effects = make_results(plan, make_records(plan)).findings.effects.frame
    assert list(effects["effect"]) == ["query_key+position_bias vs query_key"]


def test_an_experiment_without_claims_and_factors_has_no_findings(small_plan, records, tmp_path):
    results = make_results(small_plan, records)
    assert results.findings.tables == ()
    assert "## Claims" not in to_markdown(results)
    assert len(write_table(results, tmp_path)) == 3


def test_findings_stand_in_every_file(factorial, tmp_path):
    spec = factorial.spec.model_copy(
        update={
            "claims": (BetterSpec(better=("query_key, softmax, local_window", "query_key, identity, local_window")),)
        }
    )
    plan = make_plan(spec)
    records = make_records(plan)
    results = make_results(plan, records)
    files = write_table(results, tmp_path)
    assert [path.name for path in files] == [
        "small.csv",
        "small_claims.csv",
        "small_effects.csv",
        "small.md",
        "small.tex",
    ]
    assert list(pd.read_csv(files[2])["delta"]) == list(results.findings.effects.frame["delta"])
    markdown = files[3].read_text()
    for part in ("## Claims", "**supported**", "## Effects", "| query_key ", "**raises**", "effect coding"):
        assert part in markdown
    assert "better than query_key, identity, local_window" in to_text(results)


def test_skipped_rows_stand_at_their_place_and_quoted_ones_under_the_rows(small_spec, small_plan, records):
    plan = claim(small_spec, ("Swin-T", "Net1"))
    published = {**plan.spec.published, "CoAtNet-0": PublishedSpec(top1=81.6, params=25, macs=4.2, quoted=True)}
    rows = {"Swin-T": RowSpec(), "VOLO": RowSpec(), **{k: v for k, v in plan.spec.rows.items() if k != "Swin-T"}}
    spec = plan.spec.model_copy(update={"published": published, "rows": rows})
    skipped = (SkippedRow("VOLO", "no sizes"),)
    order = ("Swin-T", "VOLO", "Net1", "Net7-N")
    plan = replace(small_plan, spec=spec, skipped=skipped, stated=dict.fromkeys(order, RowSpec()))
    results = make_results(plan, records)
    frame = results.frame
    assert list(frame["row"])[:5] == ["Swin-T", "VOLO", "Net1", "Net7-N", "CoAtNet-0"]
    assert frame["is_floor"].tolist() == [False] * 5 + [True] * 2
    text = to_text(results)
    skipped, quoted = (
        next(line for line in text.splitlines() if line.startswith(name)) for name in ("VOLO", "CoAtNet")
    )
    assert "skipped: no sizes" in skipped
    assert "81.6†" in quoted
    assert "25 M, 4.2 G" in quoted
    assert "+0.3" in quoted
    assert "`quoted`: the paper's number alone" in to_markdown(results)


def test_without_its_baseline_a_table_has_no_difference_and_says_so(small_spec, small_plan, records):
    claim = BetterSpec(better=("Net7-N", "Net1"))
    spec = small_spec.model_copy(update={"claims": (claim,)})
    rows = tuple(row for row in small_plan.rows if row.name != "Swin-T" and not row.is_floor)
    runs = tuple(run for run in small_plan.runs if run.row in rows)
    plan = Plan(spec, rows, runs, (SkippedRow("Swin-T", "no init_from"),), spec.rows)
    results = make_results(plan, records)
    frame, findings = results.frame, results.findings
    assert frame["delta"].isna().all() and frame["params_factor"].isna().all()
    assert list(frame["row"]) == ["Swin-T", "Net1", "Net7-N"]
    assert list(frame["n"]) == [0, 3, 3]
    assert findings.claims.frame["delta"].item() == pytest.approx(84.37 - 83.2, abs=0.01)
    assert "There is no **Δ**: the baseline, Swin-T, is skipped." in to_markdown(results)
