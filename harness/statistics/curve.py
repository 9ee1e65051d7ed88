"""Curves of validation scores: their mean over replicates, and whether they still improve."""

import math
import statistics
from collections.abc import Iterable, Sequence

import numpy as np

LAST_PART = 0.2
MIN_LAST_EPOCHS = 4


def average_curves(curves: Iterable[Sequence[float]]) -> list[float]:
    """The mean over replicates by epoch, up to the last epoch that all curves have."""
    return [statistics.fmean(values) for values in zip(*curves, strict=False)]


def is_under_trained(curve: Sequence[float], relevant_gain: float) -> bool:
    """Whether a curve of validation scores (one per epoch, higher is better) still improves when training ends.

    A line is fitted to the last fifth of the epochs, at least four. The curve improves if the slope exceeds twice its
    standard error, and if the same number of epochs again would gain more than `relevant_gain` at this slope. A curve
    of fewer than four epochs counts as improving. The learning-rate schedule itself flattens a curve at its end. A
    marked row has therefore not converged, but a row without the mark may also gain from more epochs.
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
