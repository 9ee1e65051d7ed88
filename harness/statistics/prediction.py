"""Where one more run of a row is expected, by the spread of the runs of a table."""

import math
from collections.abc import Mapping

import numpy as np
from scipy.special import stdtrit

from harness.statistics.comparison import trim
from harness.statistics.error_model import PRIOR_DF, Scores
from harness.statistics.verdict import ALPHA

Interval = tuple[float, float]


def predict_runs(scores: Scores, alpha: float = ALPHA) -> Mapping[str, Interval]:
    """For each row with two scores or more the interval of one more run; all hold together with 1 - alpha.

    A row's variance is moderated towards that of all rows as in `ErrorModel`, with blocks left out: another run need
    not share the seeds. Intervals are Bonferroni's.
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
