"""Tables of three rows with given scores."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from harness.plan import Plan, make_plan
from harness.record import EpochMetrics, Record
from harness.spec import ClaimSpec, ExperimentSpec
from harness.table import make_results

Judge = Callable[..., pd.DataFrame]

SCORES = {
    "Swin-T": (84.0, 84.4, 84.1, 84.3),
    "Net1": (83.0, 83.5, 83.1, 83.3),
    "Net7-N": (85.1, 85.4, 85.0, 85.4),
}


@pytest.fixture
def claim_plan(small_spec: ExperimentSpec) -> Callable[..., Plan]:
    """The plan of the small experiment with four seeds and some claims."""

    def make(*claims: ClaimSpec, **changes: Any) -> Plan:
        return make_plan(small_spec.model_copy(update={"claims": claims, "seeds": 4, **changes}))

    return make


@pytest.fixture
def score_records(make_record: Callable[..., Record]) -> Callable[..., list[Record]]:
    """Records of rows by the scores of their seeds; `early` are validation scores after the first epoch."""

    def make(
        scores: dict[str, Sequence[float]] = SCORES, *, early: dict[str, Sequence[float]] | None = None
    ) -> list[Record]:
        records = []
        for name, values in scores.items():
            first = make_record(name)
            for seed, score in enumerate(values):
                begin = score if early is None else early[name][seed]
                curve = (EpochMetrics(1, 10, {"val/top1": begin}), EpochMetrics(2, 20, {"val/top1": score}))
                metrics = {**first.metrics, "test/top1": score}
                records.append(replace(first, seed=seed, metrics=metrics, curve=curve))
        return records

    return make


@pytest.fixture
def judge(claim_plan: Callable[..., Plan], score_records: Callable[..., list[Record]]) -> Judge:
    """The table of claims."""

    def make(*claims: ClaimSpec, records: list[Record] | None = None, **changes: Any) -> pd.DataFrame:
        found = score_records() if records is None else records
        return make_results(claim_plan(*claims, **changes), found).findings.claims.frame

    return make
