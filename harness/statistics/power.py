"""The power of a table: the difference that it could detect, and the seeds that would resolve its open rows."""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy.special import nctdtrinc

from harness.statistics.comparison import Comparison
from harness.statistics.error_model import Scores
from harness.statistics.multiplicity import BALANCED, find_critical
from harness.statistics.verdict import ALPHA, Verdict

POWER = 0.8
MAX_SEEDS = 1000


@dataclass(frozen=True)
class Outlook:
    """The power of a table.

    Attributes:
        detectable: the difference that the table would have resolved with a probability of 80 %.
        seeds: for each open row, the number of seeds that would resolve it with a probability of 80 %, if its
            difference and the noise are as estimated; None: more than `MAX_SEEDS`.
        variance_ratio: variance of paired differences divided by that of unpaired ones; below 1, pairing by seed helps.
    """

    detectable: float
    seeds: Mapping[str, int | None]
    variance_ratio: float | None


def find_outlook(
    scores: Scores,
    baseline: str,
    compared: Mapping[str, Comparison],
    verdicts: Mapping[str, Verdict],
    margin: float,
) -> Outlook | None:
    """The outlook of rows against their baseline; None without any test.

    Args:
        scores: the scores of the rows, by block.
        baseline: a name in `scores`.
        compared: the comparison of each row.
        verdicts: the verdict on each row.
        margin: differences below it do not matter; 0: no row is equivalent.
    """
    tested = {name: item for name, item in compared.items() if item.error is not None and item.df is not None}
    if not tested:
        return None
    errors, dfs = [item.error for item in tested.values()], [item.df for item in tested.values()]
    error, df = median(e for e in errors if e is not None), median(d for d in dfs if d is not None)
    detectable = _find_noncentrality(len(tested), df) * error
    open_rows = [name for name in tested if verdicts.get(name) == Verdict.UNRESOLVED]
    seeds = {name: _count_seeds(tested[name], len(tested), margin) for name in open_rows}
    return Outlook(detectable, seeds, _find_variance_ratio(scores, baseline, tested))


def _find_noncentrality(num_comparisons: int, df: float) -> float:
    """The difference, in standard errors, that is resolved with a probability of `POWER`."""
    (critical,) = find_critical(ALPHA, num_comparisons, BALANCED, np.array([df]))
    return float(nctdtrinc(df, 1 - POWER, critical))


def _count_seeds(item: Comparison, num_comparisons: int, margin: float) -> int | None:
    """The smallest number of seeds that proves a difference of the estimated size, or equivalence."""
    assert item.error is not None
    assert item.df is not None
    gap, error, df = max(abs(item.delta), margin - abs(item.delta)), item.error, item.df

    def settles(n: int) -> bool:
        needed = _find_noncentrality(num_comparisons, df * (n - 1) / (item.n - 1))
        return gap >= needed * error * math.sqrt(item.n / n)

    candidates = range(item.n + 1, MAX_SEEDS + 1)
    found = bisect_left(candidates, True, key=settles)
    return candidates[found] if found < len(candidates) else None


def _find_variance_ratio(scores: Scores, baseline: str, names: Mapping[str, object]) -> float | None:
    """The ratio of variances over the blocks that each row shares with the baseline."""
    paired = unpaired = 0.0
    for name in names:
        blocks = [block for block in scores[name] if block in scores[baseline]]
        row, base = ([scores[which][block] for block in blocks] for which in (name, baseline))
        paired += _sum_squares([a - b for a, b in zip(row, base, strict=True)]) / (len(blocks) - 1)
        unpaired += (_sum_squares(row) + _sum_squares(base)) / (len(blocks) - 1)
    return paired / unpaired if unpaired > 0 else None


def _sum_squares(values: list[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values)
