import numpy as np
import pytest

from harness.data.split import stratified_samples

LABELS = np.repeat([0, 1, 2], [50, 30, 20])


def test_samples_are_disjoint_sorted_and_of_the_size_asked_for() -> None:
    samples = stratified_samples(LABELS, [17, 41], seed=1)
    assert [len(sample) for sample in samples] == [17, 41]
    assert len(np.unique(np.concatenate(samples))) == 58
    assert all((np.diff(sample) > 0).all() for sample in samples)


def test_classes_keep_their_proportion() -> None:
    first, second = stratified_samples(LABELS, [10, 40], seed=1)
    assert np.bincount(LABELS[first]).tolist() == [5, 3, 2]
    assert np.bincount(LABELS[second]).tolist() == [20, 12, 8]


@pytest.mark.parametrize("sizes", [[0, 100], [100, 0], [37, 63]], ids=["second", "first", "both"])
def test_samples_may_take_everything(sizes: list[int]) -> None:
    samples = stratified_samples(LABELS, sizes, seed=1)
    assert np.sort(np.concatenate(samples)).tolist() == list(range(100))


def test_a_larger_second_sample_leaves_the_first_and_contains_the_smaller() -> None:
    held_out, small = stratified_samples(LABELS, [10, 10], seed=1)
    same, large = stratified_samples(LABELS, [10, 50], seed=1)
    assert np.array_equal(held_out, same)
    assert set(small) < set(large)


def test_the_seed_decides() -> None:
    assert np.array_equal(stratified_samples(LABELS, [20], seed=1)[0], stratified_samples(LABELS, [20], seed=1)[0])
    assert not np.array_equal(stratified_samples(LABELS, [20], seed=1)[0], stratified_samples(LABELS, [20], seed=2)[0])
