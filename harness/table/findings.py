"""Claims of the paper and effects of factors, as plain numbers for csv."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.attestation import Digests
from harness.factorial import Effect, estimate_effects
from harness.plan import Plan
from harness.record import Record
from harness.rows import SUBSETS, list_combinations, list_levels, name_level
from harness.spec import FactorsSpec
from harness.statistics import Comparison, Verdict, compare, decide, holm, judge_claim
from harness.table.selection import Replicates, is_comparable, is_thinned, select_replicates
from harness.tasks import find_measure
from paradigms.config import TERMS

_COMPARISON = ("pairs", "delta", "delta_low", "delta_high", "t_p", "holm_p", "sign_flip_p", "verdict")

CLAIM_COLUMNS = ("claim", "source", *_COMPARISON)
EFFECT_COLUMNS = ("effect", "factors", *_COMPARISON)

_FLOATS = tuple(name for name in _COMPARISON if name not in ("pairs", "verdict"))

DIRECTIONS = {Verdict.BETTER: "raises", Verdict.WORSE: "lowers", Verdict.UNRESOLVED: "unresolved"}
"""What is said of an effect on the measure's value, whichever direction is better."""

OFF, ON = "off", "on"


@dataclass(frozen=True)
class Findings:
    """Both tables; each is empty where the experiment asks for none.

    Attributes:
        claims: one row a claim.
        effects: one row a main effect or interaction of two factors.
        left_out: combinations that the effects do not rest on: a bad outcome, or other code or data.
    """

    claims: pd.DataFrame
    effects: pd.DataFrame
    left_out: tuple[str, ...] = ()


def make_findings(plan: Plan, records: Iterable[Record], *, current: Mapping[str, Digests] | None = None) -> Findings:
    """Judge claims and estimate effects over the replicates that stand in the table; see `make_table`."""
    rows = {row.row.name: row for row in select_replicates(plan, records, current or {})}
    claims = _make_claims(plan, rows)
    if plan.spec.factors is None or plan.spec.baseline not in rows:
        return Findings(claims, _to_frame([], EFFECT_COLUMNS))
    combined = list_combinations(plan.spec.factors)
    present = {name: rows[name] for name in combined if name in rows}
    kept = _select_kept(present, rows[plan.spec.baseline])
    factors, points = _make_design(plan.spec.factors, kept)
    effects = _make_effects(factors, points, list(kept.values()))
    return Findings(claims, effects, tuple(name for name in combined if name not in kept))


def _make_claims(plan: Plan, rows: Mapping[str, Replicates]) -> pd.DataFrame:
    pairs = [tuple(rows.get(name) for name in claim.better) for claim in plan.spec.claims]
    comparisons = [_compare(*pair) for pair in pairs]
    corrected = holm([None if comparison is None else comparison.t_p for comparison in comparisons])
    content, sign = [], find_measure(plan.spec).sign
    for claim, comparison, holm_p in zip(plan.spec.claims, comparisons, corrected, strict=True):
        thinned = is_thinned(*(rows[name] for name in claim.better if name in rows))
        verdict = judge_claim(0.0 if comparison is None else sign * comparison.delta, None if thinned else holm_p)
        better, worse = claim.better
        named = {"claim": f"{better} better than {worse}", "source": claim.source or ""}
        content.append({**named, **_to_numbers(comparison, holm_p), "verdict": verdict.value})
    return _to_frame(content, CLAIM_COLUMNS)


def _compare(row: Replicates | None, other: Replicates | None) -> Comparison | None:
    """Seed by seed; None where a row is skipped, or was made with other code or data."""
    if row is None or other is None or not is_comparable(row, other):
        return None
    return compare(row.scores, other.scores)


def _select_kept(rows: Mapping[str, Replicates], baseline: Replicates) -> dict[str, Replicates]:
    """Combinations without a bad outcome, of the baseline's code and data."""
    return {name: row for name, row in rows.items() if is_comparable(row, baseline) and not is_thinned(row)}


def _make_design(stated: FactorsSpec, rows: Iterable[str]) -> tuple[dict[str, tuple[str, ...]], list[dict[str, str]]]:
    """The factors with their levels, and the levels of each row; subsets of terms are four factors, each off or on."""
    levels = {name: tuple(map(name_level, values)) for name, values in list_levels(stated).items() if len(values) > 1}
    combined = list_combinations(stated)
    points = [{name: name_level(combined[row][name]) for name in levels} for row in rows]
    if levels.get("parameterization") != tuple(map(name_level, SUBSETS)):
        return levels, points
    terms: dict[str, tuple[str, ...]] = dict.fromkeys(TERMS, (OFF, ON))
    del levels["parameterization"]
    switches = [{term: ON if term in combined[row]["parameterization"] else OFF for term in TERMS} for row in rows]
    return {**terms, **levels}, [{**on, **point} for on, point in zip(switches, points, strict=True)]


def _make_effects(
    factors: Mapping[str, tuple[str, ...]], points: Sequence[Mapping[str, str]], rows: Sequence[Replicates]
) -> pd.DataFrame:
    seeds = sorted(set.intersection(*(set(row.scores) for row in rows))) if rows else []
    measured = np.array([[row.scores[seed] for seed in seeds] for row in rows]).reshape(len(rows), len(seeds))
    effects = estimate_effects(factors, points, measured)
    comparisons = [_to_comparison(effect, seeds) for effect in effects]
    corrected = holm([None if comparison is None else comparison.t_p for comparison in comparisons])
    content = [
        {
            "effect": " × ".join(_name(factors[factor], level, factor) for factor, level in effect.parts),
            "factors": " × ".join(factor for factor, _ in effect.parts),
            **_to_numbers(comparison, holm_p),
            "verdict": "" if comparison is None else DIRECTIONS[decide(comparison.delta, holm_p)],
        }
        for effect, comparison, holm_p in zip(effects, comparisons, corrected, strict=True)
    ]
    return _to_frame(content, EFFECT_COLUMNS)


def _name(levels: Sequence[str], level: str, factor: str) -> str:
    """A term that is switched on by its own name; any other level against the first."""
    return factor if level == ON else f"{level} vs {levels[0]}"


def _to_comparison(effect: Effect, seeds: Sequence[int]) -> Comparison | None:
    """An effect has a value a seed, and is compared with none at all."""
    if effect.values is None:
        return None
    return compare(dict(zip(seeds, effect.values, strict=True)), dict.fromkeys(seeds, 0.0))


def _to_numbers(comparison: Comparison | None, holm_p: float | None) -> dict[str, Any]:
    if comparison is None:
        return {"pairs": 0}
    values = asdict(comparison)
    renamed = {"pairs": values["n"], "delta_low": values["low"], "delta_high": values["high"], "holm_p": holm_p}
    return renamed | {name: values[name] for name in ("delta", "t_p", "sign_flip_p")}


def _to_frame(content: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    frame = pd.DataFrame(content, columns=list(columns))
    return frame.astype({"pairs": "Int64", **dict.fromkeys(_FLOATS, "float64")})
