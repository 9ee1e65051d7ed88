"""Main effects and two-factor interactions of a factorial experiment, one value per seed.

A linear model with effect coding: every factor and every pair of factors. A main effect is then what a level adds
over the factor's first level on average over all levels of the other factors, each weighing the same, and an
interaction is by how much that differs between a level of the other factor and its first. Combinations that do not
exist, such as Eq. 4 (arXiv:2112.12786) without any term, are bridged by the model: it has no interactions of three.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Factors = Mapping[str, Sequence[str]]
"""The levels of each factor; what a level does is told against the first."""

_TOLERANCE = 1e-8


@dataclass(frozen=True)
class Effect:
    """A main effect (one part) or an interaction (two).

    Attributes:
        parts: a factor with its level, for each factor that takes part.
        values: one for each replicate, in the unit of the measurements; None where the combinations that were measured
            do not tell it from others.
    """

    parts: tuple[tuple[str, str], ...]
    values: tuple[float, ...] | None


def estimate_effects(factors: Factors, points: Sequence[Mapping[str, str]], measured: Array) -> list[Effect]:
    """All main effects, then all interactions.

    Args:
        factors: every factor has two levels or more.
        points: the level of each factor in each combination that was measured.
        measured: (combinations, replicates).
    """
    design = np.concatenate([_encode(factors, group, points) for group in _groups(factors)], axis=1)
    inverse = np.linalg.pinv(design)
    effects = []
    for parts, contrast in _contrasts(factors):
        weights = contrast @ inverse
        is_known = len(points) > 0 and bool(np.abs(weights @ design - contrast).max() < _TOLERANCE)
        effects.append(Effect(parts, tuple((weights @ measured).tolist()) if is_known else None))
    return effects


def _groups(factors: Factors) -> list[tuple[str, ...]]:
    """The terms of the model: the mean, every factor, every pair."""
    return [group for size in (0, 1, 2) for group in combinations(factors, size)]


def _code(levels: Sequence[str], level: str) -> Array:
    """Effect coding: the first level is -1 everywhere, so that a factor's columns sum to zero over its levels."""
    codes = np.concatenate([-np.ones((1, len(levels) - 1)), np.eye(len(levels) - 1)])
    row: Array = codes[list(levels).index(level)]
    return row


def _encode(factors: Factors, group: tuple[str, ...], points: Sequence[Mapping[str, str]]) -> Array:
    """The columns of one term of the model, a row for each combination."""
    width = int(np.prod([len(factors[name]) - 1 for name in group]))
    rows = [_multiply([_code(factors[name], point[name]) for name in group]) for point in points]
    return np.array(rows).reshape(len(points), width)


def _multiply(vectors: Sequence[Array]) -> Array:
    result: Array = np.ones(1)
    for vector in vectors:
        result = np.kron(result, vector).astype(np.float64)
    return result


def _contrasts(factors: Factors) -> Iterator[tuple[tuple[tuple[str, str], ...], Array]]:
    """Each effect with the combination of the model's columns that is its value."""
    groups = _groups(factors)
    widths = [int(np.prod([len(factors[name]) - 1 for name in group])) for group in groups]
    for number, group in enumerate(groups):
        if not group:
            continue
        start = sum(widths[:number])
        for levels in product(*(factors[name][1:] for name in group)):
            contrast = np.zeros(sum(widths))
            contrast[start : start + widths[number]] = _multiply(
                [
                    _code(factors[name], level) - _code(factors[name], factors[name][0])
                    for name, level in zip(group, levels, strict=True)
                ]
            )
            yield tuple(zip(group, levels, strict=True)), contrast
