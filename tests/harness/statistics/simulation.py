"""Simulated tables: how often verdicts and intervals are wrong, and how often a true difference is found.

`python -m tests.harness.statistics.simulation` prints the table of `docs/statistics.md`.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from harness.statistics import ALPHA, compare

Array = NDArray[np.float64]

ROWS = 8
"""A baseline and seven others."""

DIFFERENT = 4
"""Rows with a true difference, where power is measured."""

RUNS = Path(__file__).parents[3] / "results/laptop/runs"


@dataclass(frozen=True)
class Figures:
    """Shares of simulated tables, or of rows.

    Attributes:
        error: tables without any true difference that have a verdict.
        coverage: tables whose intervals all contain the truth, half of the rows being different.
        power: rows with a true difference of two standard deviations that are resolved.
        paired: the same by the paired t-test and Holm's correction.
    """

    error: float
    coverage: float
    power: float
    paired: float


def draw_normal(rng: np.random.Generator, seeds: int) -> Array:
    return rng.standard_normal((ROWS, seeds))


def draw_skewed(rng: np.random.Generator, seeds: int) -> Array:
    """A long tail towards bad runs: a gamma distribution of skewness -1."""
    return (4 - rng.gamma(4, size=(ROWS, seeds))) / 2


def draw_uneven(rng: np.random.Generator, seeds: int) -> Array:
    """Each row has a variance of its own, from a scaled inverse chi-square distribution with 8 degrees of freedom."""
    variances = 6 / rng.chisquare(8, (ROWS, 1))
    return rng.standard_normal((ROWS, seeds)) * np.sqrt(variances)


@cache
def load_residuals() -> Array:
    """Of the committed runs: scores less the mean of their row, with a standard deviation of 1."""
    residuals: list[float] = []
    for path in sorted(RUNS.glob("*.jsonl")):
        scores: dict[str, list[float]] = {}
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if record["status"] == "ok":
                scores.setdefault(record["cell_id"], []).append(record["metrics"]["test/top1"])
        residuals += [
            (score - fmean(own)) * (len(own) / (len(own) - 1)) ** 0.5
            for own in scores.values()
            if len(own) > 1
            for score in own
        ]
    found = np.array(residuals)
    return found / found.std()


def draw_committed(rng: np.random.Generator, seeds: int) -> Array:
    return rng.choice(load_residuals(), (ROWS, seeds))


def draw_thinned(rng: np.random.Generator, seeds: int) -> Array:
    """Of all runs 5 % have diverged."""
    noise = rng.standard_normal((ROWS, seeds))
    noise[rng.random(noise.shape) < 0.05] = np.nan
    return noise


Draw = Callable[[np.random.Generator, int], Array]

SETTINGS: dict[str, Draw] = {
    "normal": draw_normal,
    "skewed": draw_skewed,
    "uneven variances": draw_uneven,
    "committed runs": draw_committed,
    "5 % diverged": draw_thinned,
}


def to_scores(table: Array) -> dict[str, dict[int, float]]:
    return {
        f"row {index}": {seed: float(score) for seed, score in enumerate(row) if not np.isnan(score)}
        for index, row in enumerate(table)
    }


def simulate(draw: Draw, seeds: int, tables: int) -> Figures:
    """Compare simulated tables as `harness table` does."""
    rng = np.random.default_rng([seeds, len(draw.__name__)])
    truth = np.zeros(ROWS)
    truth[1 : 1 + DIFFERENT] = 2.0
    errors, covered, found, paired = 0, 0, [], []
    for _ in range(tables):
        compared = list(compare(to_scores(draw(rng, seeds) + truth[:, None]), "row 0").values())
        tested = [
            (item, item.interval, true)
            for item, true in zip(compared, truth[1:], strict=True)
            if item is not None and item.interval is not None
        ]
        covered += all(low <= true <= high for _, (low, high), true in tested)
        # Without any true difference the same noise has a verdict where some error exceeds half of an interval.
        errors += any(
            abs(item.delta - true) > max(high - item.delta, item.delta - low) for item, (low, high), true in tested
        )
        different = compared[:DIFFERENT]
        found += [item is not None and item.p is not None and item.p < ALPHA and item.delta > 0 for item in different]
        paired += [item is not None and item.holm_p is not None and item.holm_p < ALPHA for item in different]
    return Figures(errors / tables, covered / tables, float(np.mean(found)), float(np.mean(paired)))


def make_lines(tables: int) -> Iterable[str]:
    yield "| noise | seeds | wrong verdict in a table | all intervals right | power | power of the paired t-test |"
    yield "|---|---|---|---|---|---|"
    for name, draw in SETTINGS.items():
        for seeds in (3, 5, 7, 10):
            figures = simulate(draw, seeds, tables)
            shown = (figures.error, figures.coverage, figures.power, figures.paired)
            yield f"| {name} | {seeds} | {' | '.join(f'{100 * value:.1f} %' for value in shown)} |"


if __name__ == "__main__":
    for line in make_lines(4_000):
        print(line, flush=True)  # noqa: T201 - a script
