"""What each kind of claim needs to be supported or refuted, and the evidence that it shows."""

import re
from dataclasses import replace

import pytest

from harness.record import RunStatus
from harness.spec import BetterSpec, EarlierSpec, EqualSpec, FasterSpec, LimitsSpec, OrderSpec, OutcomeSpec
from tests.harness.table.claims.conftest import SCORES

TWIN = (84.02, 84.39, 84.1, 84.31)
"""The scores of Swin-T but for some hundredths."""


def with_metrics(records, row, **metrics):
    """The records, with other metrics of a row; `__` stands for `/`."""
    changed = {name.replace("__", "/"): value for name, value in metrics.items()}
    return [replace(r, metrics={**r.metrics, **changed}) if r.row == row else r for r in records]


def end(records, row, status, seeds=range(4)):
    """The records, with another outcome of some runs of a row."""
    return [replace(r, status=status) if r.row == row and r.seed in seeds else r for r in records]


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        (("Net7-N", "Swin-T", "Net1"), "supported"),
        (("Net7-N", "Net1", "Swin-T"), "refuted"),
        (("Net1", "Swin-T", "Net7-N"), "refuted"),
    ],
)
def test_an_order_is_judged_by_its_neighbors(judge, rows, verdict):
    assert judge(OrderSpec(order=rows))["verdict"].item() == verdict


def test_an_order_with_a_pair_that_is_not_proven_is_undecided(judge, score_records):
    records = score_records({**SCORES, "Net1": TWIN})
    claims = judge(OrderSpec(order=("Net7-N", "Swin-T", "Net1")), records=records)
    assert claims["verdict"].item() == "undecided"
    assert re.fullmatch(r"Δ \+1.*, n = 4; Δ [+-]0.0.*, n = 4", claims["evidence"].item())


def test_the_numbers_of_an_order_are_those_of_its_weakest_pair(judge):
    order, *pairs = judge(
        OrderSpec(order=("Net7-N", "Swin-T", "Net1")),
        BetterSpec(better=("Net7-N", "Swin-T")),
        BetterSpec(better=("Swin-T", "Net1")),
    ).to_dict("records")
    weakest = max(pairs, key=lambda pair: pair["p"])
    assert {name: order[name] for name in ("delta", "p", "pairs")} == {
        name: weakest[name] for name in ("delta", "p", "pairs")
    }


@pytest.mark.parametrize(
    ("rows", "within", "verdict"),
    [
        (("Swin-T", "Net1"), 0.2, "supported"),
        (("Net1", "Swin-T"), None, "supported"),
        (("Swin-T", "Net1"), 0.001, "undecided"),
        (("Net7-N", "Swin-T"), 0.2, "refuted"),
        (("Swin-T", "Net7-N"), 0.2, "refuted"),
        (("Net7-N", "Swin-T"), 1.1, "undecided"),
        (("Net7-N", "Swin-T"), 3.0, "supported"),
    ],
)
def test_rows_are_equal_within_the_margin_alone(judge, score_records, rows, within, verdict):
    records = score_records({**SCORES, "Net1": TWIN})
    assert judge(EqualSpec(equal=rows, within=within), records=records, margin=0.2)["verdict"].item() == verdict


def test_without_a_margin_equality_is_not_testable(judge, monkeypatch):
    monkeypatch.setattr("harness.table.claims.kinds.find_margin", lambda _spec: 0.0)
    assert list(judge(EqualSpec(equal=("Swin-T", "Net1")))["verdict"]) == ["not testable"]
    assert list(judge(EqualSpec(equal=("Swin-T", "Net1"), within=9.0))["verdict"]) == ["supported"]


def test_a_row_is_ahead_by_its_early_validation_score(judge, score_records):
    early = {"Swin-T": (50.0, 50.4, 50.1, 50.3), "Net1": (60.1, 60.4, 60.0, 60.4), "Net7-N": (50.0, 50.1, 50.3, 50.2)}
    claims = judge(
        EarlierSpec(earlier=("Net1", "Swin-T"), epoch=1),
        EarlierSpec(earlier=("Net1", "Swin-T"), share=0.5),
        EarlierSpec(earlier=("Net1", "Swin-T"), share=0.1),
        EarlierSpec(earlier=("Net1", "Swin-T"), share=0.9),
        records=score_records(early=early),
    )
    assert list(claims["verdict"]) == ["supported", "supported", "supported", "refuted"]
    assert list(claims["delta"].round(1)) == [10.0, 10.0, 10.0, -1.0]
    assert claims.loc[1, "claim"] == "Net1 ahead of Swin-T after 50 % of the epochs"


def test_an_epoch_beyond_the_schedule_is_not_testable(judge):
    claims = judge(EarlierSpec(earlier=("Net1", "Swin-T"), epoch=50))
    assert (claims["verdict"].item(), claims["evidence"].item()) == ("not testable", "recipe 'tiny' has 2 epochs")


def test_speed_is_compared_by_its_ratio(judge, score_records):
    records = score_records()
    for seed in range(4):
        swin = with_metrics([r for r in records if r.seed == seed], "Swin-T", train__images_per_second=400.0 + 3 * seed)
        records = [*(r for r in records if r.seed != seed), *with_metrics(swin, "Net1", train__images_per_second=200.0)]
    claims = judge(
        FasterSpec(faster=("Swin-T", "Net1"), by="throughput"),
        FasterSpec(faster=("Net1", "Swin-T"), by="throughput"),
        records=records,
    )
    assert list(claims["verdict"]) == ["supported", "refuted"]
    assert re.fullmatch(r"images/s 2\.02× \[1\..*×, 2\..*×\], n = 4", claims.loc[0, "evidence"])
    assert claims["delta"].isna().all()


def test_multiply_adds_decide_without_a_test(judge, score_records):
    records = [r for r in with_metrics(score_records(), "Net1", macs=2_000_000.0) if r.seed == 0]
    claims = judge(
        FasterSpec(faster=("Net1", "Swin-T"), by="macs"),
        FasterSpec(faster=("Swin-T", "Net1"), by="macs"),
        FasterSpec(faster=("Swin-T", "Net7-N"), by="macs"),
        records=records,
    )
    assert list(claims["verdict"]) == ["supported", "refuted", "refuted"]
    assert claims.loc[0, "evidence"] == "2.000 M against 3.900 M multiply-adds"


@pytest.mark.parametrize(
    ("seeds", "verdict", "evidence"),
    [
        (range(4), "supported", "4 of 4 runs diverged"),
        ((0, 1), "undecided", "2 of 4 runs diverged"),
        ((), "refuted", "0 of 4 runs diverged"),
    ],
)
def test_every_run_has_to_end_as_claimed(judge, score_records, seeds, verdict, evidence):
    records = end(score_records(), "Net1", RunStatus.DIVERGED, seeds)
    claims = judge(OutcomeSpec(outcome=("Net1",), status="diverged"), records=records)
    assert (claims["verdict"].item(), claims["evidence"].item()) == (verdict, evidence)


def test_the_outcome_of_one_run_is_no_verdict_and_a_bug_is_no_run(judge, score_records):
    records = end(end(score_records(), "Net1", RunStatus.FAILED), "Net1", RunStatus.DIVERGED, [0])
    claims = judge(OutcomeSpec(outcome=("Net1",), status="diverged"), records=records)
    assert (claims["verdict"].item(), claims["evidence"].item()) == ("", "1 of 1 run diverged")


@pytest.mark.parametrize(
    ("status", "limit"), [("out_of_memory", "memory_limit_gb"), ("timed_out", "time_limit_minutes")]
)
def test_that_a_limit_was_not_reached_shows_nothing_where_there_is_none(
    judge, score_records, small_spec, status, limit
):
    claim = OutcomeSpec(outcome=("Net1",), status=status)
    limits = {name: LimitsSpec(**values) for name, values in (("none", {}), ("some", {limit: 1.0}))}
    recipes = {name: small_spec.recipe.model_copy(update={"limits": own}) for name, own in limits.items()}
    without = judge(claim, recipe=recipes["none"])
    assert without["verdict"].item() == "not testable"
    assert without["evidence"].item().endswith(f"; recipe 'tiny' sets no {limit}")
    assert judge(claim, recipe=recipes["some"])["verdict"].item() == "refuted"
    reached = end(score_records(), "Net1", RunStatus(status))
    assert judge(claim, recipe=recipes["none"], records=reached)["verdict"].item() == "supported"


def test_runs_without_a_measurement_are_named(judge, score_records):
    claim = BetterSpec(better=("Swin-T", "Net1"))
    some, all_runs = (end(score_records(), "Net1", RunStatus.DIVERGED, seeds) for seeds in ([3], range(4)))
    claims = judge(claim, records=some)
    assert claims["verdict"].item() == "undecided"
    assert claims["evidence"].item().endswith("n = 3; Net1: 1 of 4 runs without a measurement")
    claims = judge(claim, records=all_runs)
    assert claims["verdict"].item() == ""
    assert claims["evidence"].item().startswith("Δ nothing to compare")
