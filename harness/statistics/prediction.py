"""Prediction intervals for one more run of a row, from the spread of the runs of a table."""

import math
from collections.abc import Mapping

import numpy as np
from scipy.special import stdtrit

from harness.statistics.comparison import trim
from harness.statistics.error_model import PRIOR_DF, Scores
from harness.statistics.verdict import ALPHA

Interval = tuple[float, float]


def predict_runs(scores: Scores, alpha: float = ALPHA) -> Mapping[str, Interval]:
    """The interval of one more run for each row with two or more scores; simultaneous at level 1 - alpha.

    The variance of a row is moderated as in `ErrorModel`, but without blocks, since another run need not share the
    seeds. The intervals have Bonferroni's correction.
    """
    rows = {name: np.array([*own.values()]) for name, own in scores.items() if len(own) > 1}
    total_df = sum(len(row) - 1 for row in rows.values())
    common = sum(float(row.var(ddof=1)) * (len(row) - 1) for row in rows.values()) / total_df if rows else 0.0
    intervals = {}
    for name, row in rows.items():
        df = len(row) - 1
        own, prior = float(row.var(ddof=1)), PRIOR_DF if len(rows) > 1 else 0.0
        variance = (prior * common + df * own) / (prior + df)
        bound = float(stdtrit(min(prior + df, total_df), 1 - alpha / (2 * len(rows))))
        half_width = bound * math.sqrt(variance * (1 + 1 / len(row)))
        mean = float(row.mean())
        intervals[name] = (trim(mean - half_width), trim(mean + half_width))
    return intervals
