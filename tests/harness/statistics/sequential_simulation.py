"""Simulated tables with seeds until resolved: error, power and saved runs against ten seeds of every row.

`python -m tests.harness.statistics.sequential_simulation` prints the figures of
`docs/decisions/0016-seeds-until-resolved.md`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from harness.statistics import ALPHA, Decision, Family, Reason, Rule, compare, decide_look, plan_looks
from tests.harness.statistics.simulation import ROWS, SETTINGS, Array, Draw, to_scores

SEED = 16

FIXED = 10
"""Seeds of the design that is compared with."""

NAMES = tuple(f"row {index}" for index in range(ROWS))
CONTRASTS = {name: {name: 1.0, NAMES[0]: -1.0} for name in NAMES[1:]}


@dataclass(frozen=True)
class SequentialFigures:
    """Shares of simulated tables, of rows with a true difference, and of runs.

    Attributes:
        error: tables with a wrong verdict on any row.
        power: rows with a true difference that are resolved; 0 where no row has one.
        fixed_power: the same with `FIXED` seeds.
        saved: runs that `FIXED` seeds of every row need in addition, the baseline's included.
    """

    error: float
    power: float
    fixed_power: float
    saved: float


def follow(table: Array, max_seeds: int, *, stops_futile: bool = True) -> tuple[dict[str, Decision], int]:
    """The decision on each row of a table, and the runs that it took."""
    decided: dict[str, Decision] = {}
    trained = dict.fromkeys(NAMES, 0)
    for look in plan_looks(max_seeds):
        open_rows = [name for name in CONTRASTS if name not in decided or decided[name].is_open]
        if not open_rows:
            break
        trained |= dict.fromkeys([NAMES[0], *open_rows], look.seeds)
        scores = {
            name: {seed: score for seed, score in own.items() if seed < trained[name]}
            for name, own in to_scores(table[:, : look.seeds]).items()
        }
        kept = () if stops_futile else NAMES
        decided |= decide_look(look, scores, CONTRASTS, decided, Rule(Family.DUNNETT), kept=kept)
    return decided, sum(trained.values())


def simulate_sequential(
    draw: Draw, *, different: int, tables: int, difference: float = 1.5, max_seeds: int = 12, stops_futile: bool = True
) -> SequentialFigures:
    """Follow simulated tables in which some rows differ from the baseline by as many standard deviations."""
    rng = np.random.default_rng([SEED, max_seeds, different, len(draw.__name__)])
    truth = np.array([0.0, *[difference] * different, *[0.0] * (ROWS - 1 - different)])
    wrong, found, fixed, runs = 0, [], [], 0
    for _ in range(tables):
        table = draw(rng, max_seeds) + truth[:, None]
        decided, trained = follow(table, max_seeds, stops_futile=stops_futile)
        reasons = [decided[name].reason for name in CONTRASTS]
        wrong += any(
            reason == Reason.WORSE or (reason == Reason.BETTER and true == 0)
            for reason, true in zip(reasons, truth[1:], strict=True)
        )
        found += [reason == Reason.BETTER for reason in reasons[:different]]
        runs += trained
        if different:
            compared = compare(to_scores(table[:, :FIXED]), NAMES[0])
            items = [compared[name] for name in NAMES[1 : 1 + different]]
            fixed += [item is not None and item.p is not None and item.p < ALPHA and item.delta > 0 for item in items]
    power, fixed_power = (float(np.mean(values)) if values else 0.0 for values in (found, fixed))
    return SequentialFigures(wrong / tables, power, fixed_power, 1 - runs / (tables * ROWS * FIXED))


def make_lines(tables: int) -> Iterable[str]:
    yield "| noise | rows that differ | wrong verdict in a table | power | power of n = 10 | runs saved |"
    yield "|---|---|---|---|---|---|"
    for name, draw in SETTINGS.items():
        for different in (0, 1, 2, 4, 7) if name == "normal" else (0, 4):
            figures = simulate_sequential(draw, different=different, tables=tables)
            powers = (figures.power, figures.fixed_power) if different else ()
            shown = [f"{100 * value:.1f} %" for value in (figures.error, *powers)]
            cells = [name, str(different), *shown, *([] if different else ["", ""]), f"{100 * figures.saved:.0f} %"]
            yield f"| {' | '.join(cells)} |"
    for max_seeds in (5, 7, 9, 12):
        error = simulate_sequential(
            SETTINGS["normal"], different=0, tables=tables, max_seeds=max_seeds, stops_futile=False
        ).error
        yield f"Error without stopping for futility, at most {max_seeds} seeds: {100 * error:.1f} %"


if __name__ == "__main__":
    for line in make_lines(4_000):
        print(line, flush=True)  # noqa: T201 - a script
