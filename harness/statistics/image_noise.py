"""The noise of test images: the variance that another test set of the same size would add to a difference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.statistics.comparison import Comparison, trim
from harness.statistics.multiplicity import BALANCED, Dunnett

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ImageNoise:
    """The noise that the choice of test images adds to a difference.

    Attributes:
        error: standard error of the difference between two rows over random test sets of the same size, without the
            noise of training.
        num_images: size of the test set.
    """

    error: float
    num_images: int


def find_image_noise(differences: Array) -> ImageNoise | None:
    """The image noise of a difference; None if it cannot be separated from the noise of training.

    The model has two random effects, `difference = seed + image + rest`. The variance of the image effect is (mean
    square of images - mean square of the rest) / number of seeds. The rest is already part of the noise between seeds.

    Args:
        differences: differences of the scores of two rows, (seeds, images); the score of a run is the mean over its
            images.
    """
    num_seeds, num_images = differences.shape
    if num_seeds < 2 or num_images < 2:
        return None
    of_images, of_seeds = differences.mean(axis=0), differences.mean(axis=1, keepdims=True)
    rest = differences - of_images - of_seeds + differences.mean()
    rest_variance = float((rest**2).sum()) / ((num_seeds - 1) * (num_images - 1))
    variance = max(0.0, float(of_images.var(ddof=1)) - rest_variance / num_seeds)
    return ImageNoise(trim(math.sqrt(variance / num_images)), num_images)


def add_image_noise(comparisons: Sequence[Comparison], noises: Sequence[ImageNoise]) -> list[Comparison]:
    """The comparisons of all rows with one baseline, as if every table had its own test images.

    The variances of training and of images are added, with Satterthwaite's degrees of freedom. p-values are those of
    Dunnett's step-down test with correlations of 1/2; intervals are widened with the error.

    Args:
        comparisons: comparisons that have an error.
        noises: the image noise of each comparison.
    """
    errors, df = [], []
    for item, noise in zip(comparisons, noises, strict=True):
        assert item.error is not None
        assert item.df is not None
        of_training, of_images = item.error**2, noise.error**2
        total = of_training + of_images
        errors.append(math.sqrt(total))
        df.append(total**2 / (of_training**2 / item.df + of_images**2 / (noise.num_images - 1)))
    t = tuple(item.delta / error for item, error in zip(comparisons, errors, strict=True))
    p_values = Dunnett(t, tuple(df), BALANCED).adjust()
    return [
        _widen(item, error, own_df, p) for item, error, own_df, p in zip(comparisons, errors, df, p_values, strict=True)
    ]


def _widen(item: Comparison, error: float, df: float, p: float) -> Comparison:
    assert item.error is not None
    assert item.interval is not None
    low, high = ((end - item.delta) * error / item.error + item.delta for end in item.interval)
    return replace(item, low=low, high=high, p=p, error=error, df=df)
