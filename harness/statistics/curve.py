"""Curves of validation scores: their mean over replicates, and whether they still climb."""

import math
import statistics
from collections.abc import Iterable, Sequence

import numpy as np

LAST_PART = 0.2
MIN_LAST_EPOCHS = 4


def average_curves(curves: Iterable[Sequence[float]]) -> list[float]:
    """The mean over replicates epoch by epoch, as far as all of them go."""
    return [statistics.fmean(values) for values in zip(*curves, strict=False)]


def is_under_trained(curve: Sequence[float], relevant_gain: float) -> bool:
    """Whether a curve of validation scores (one an epoch, higher is better) still climbs when training ends.

    A line is fitted to the last fifth of the epochs, at least four. The curve climbs where the slope exceeds twice its
    standard error, and where as many epochs again would gain more than `relevant_gain` at that slope. A curve of fewer
    than four epochs has shown no plateau, so that it counts as climbing. The schedule itself flattens a curve towards
    its end: the mark says that a row had surely not settled, its absence does not say that more epochs would gain
    nothing.
    """
    if len(curve) < MIN_LAST_EPOCHS:
        return len(curve) > 0
    last = np.array(curve[-max(MIN_LAST_EPOCHS, math.ceil(LAST_PART * len(curve))) :])
    if not np.isfinite(last).all():
        return False
    epochs = np.arange(len(last)) - (len(last) - 1) / 2
    slope = float(epochs @ last / (epochs @ epochs))
    residuals = last - last.mean() - slope * epochs
    error = math.sqrt(float(residuals @ residuals) / (len(last) - 2) / float(epochs @ epochs))
    return slope > 2 * error and slope * len(last) > relevant_gain
