"""Stratified samples of a labelled dataset: which images are trained on, validated and tested."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.seeding import seed_for
from harness.spec import DataSpec

Indices = NDArray[np.int64]


def split_training(labels: NDArray[np.integer], spec: DataSpec, *, replicate: int) -> tuple[Indices, Indices]:
    """The images of a training set that are held out for validation, and those that are trained on.

    Validation has the same images in every replicate. So has training, unless the recipe draws a sample for each.
    """
    num_train = spec.train_images or len(labels) - spec.val_images
    seed = seed_for("split", spec.name, "train")
    held_out, trained = stratified_samples(labels, [spec.val_images, num_train], seed=seed)
    if not spec.resample_train:
        return held_out, trained
    others = np.setdiff1d(np.arange(len(labels)), held_out)
    seed = seed_for("split", spec.name, "train", replicate)
    (drawn,) = stratified_samples(labels[others], [num_train], seed=seed)
    return held_out, others[drawn]


def sample_test(labels: NDArray[np.integer], spec: DataSpec) -> Indices:
    """The images of a test set that are measured, the same in every replicate."""
    seed = seed_for("split", spec.name, "test")
    (tested,) = stratified_samples(labels, [spec.test_images or len(labels)], seed=seed)
    return tested


def stratified_samples(labels: NDArray[np.integer], sizes: Sequence[int], *, seed: int) -> list[Indices]:
    """Disjoint samples, each with the classes in the proportion in which they are there; sorted indices.

    A sample does not depend on the sizes of those after it, and a smaller last sample is part of a larger one up to
    rounding: more training images leave the validation images as they are.
    """
    assert sum(sizes) <= len(labels)
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    remaining = [generator.permutation(indices) for indices in members]
    samples = []
    for size in sizes:
        counts = _apportion(size, [len(indices) for indices in remaining])
        taken = [indices[:count] for indices, count in zip(remaining, counts, strict=True)]
        remaining = [indices[count:] for indices, count in zip(remaining, counts, strict=True)]
        samples.append(np.sort(np.concatenate(taken)))
    return samples


def _apportion(size: int, available: Sequence[int]) -> list[int]:
    """Whole counts that add up to `size`, in proportion to `available` (largest remainders)."""
    quotas = [size * count / max(sum(available), 1) for count in available]
    counts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda i: counts[i] - quotas[i])
    for index in by_remainder[: size - sum(counts)]:
        counts[index] += 1
    return counts
