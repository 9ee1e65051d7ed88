"""Main effects and two-factor interactions of a factorial experiment, one value per seed.

A linear model with effect coding has every factor and every pair of factors. A main effect is the difference between a
level and the first level of its factor, averaged over all levels of the other factors with equal weights. An
interaction is the difference of such an effect between a level of another factor and the first level of that factor.
Some combinations do not exist, such as Eq. 4 (arXiv:2112.12786) without any term. The model still determines the
effects, because it has no interactions of three factors.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Factors = Mapping[str, Sequence[str]]
"""The levels of each factor; effects of a level are relative to the first."""

_TOLERANCE = 1e-8


@dataclass(frozen=True)
class Effect:
    """A main effect (one part) or an interaction (two).

    Attributes:
        parts: the factors of the effect with their levels.
        values: one value per replicate, in the unit of the measurements; None if the measured combinations do not
            determine the effect.
    """

    parts: tuple[tuple[str, str], ...]
    values: tuple[float, ...] | None


def estimate_effects(factors: Factors, points: Sequence[Mapping[str, str]], measured: Array) -> list[Effect]:
    """All main effects, then all interactions.

    Args:
        factors: factors with two or more levels.
        points: the level of each factor in each measured combination.
        measured: an array (combinations, replicates).
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
    """Effect coding: the first level is -1 in all columns, so that the columns of a factor sum to zero over levels."""
    codes = np.concatenate([-np.ones((1, len(levels) - 1)), np.eye(len(levels) - 1)])
    row: Array = codes[list(levels).index(level)]
    return row


def _encode(factors: Factors, group: tuple[str, ...], points: Sequence[Mapping[str, str]]) -> Array:
    """The columns of one term of the model, one row per combination."""
    width = int(np.prod([len(factors[name]) - 1 for name in group]))
    rows = [_multiply([_code(factors[name], point[name]) for name in group]) for point in points]
    return np.array(rows).reshape(len(points), width)


def _multiply(vectors: Sequence[Array]) -> Array:
    result: Array = np.ones(1)
    for vector in vectors:
        result = np.kron(result, vector).astype(np.float64)
    return result


def _contrasts(factors: Factors) -> Iterator[tuple[tuple[tuple[str, str], ...], Array]]:
    """Each effect with its weights of the columns of the model."""
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
