import numpy as np
import pytest
from pydantic import ValidationError

from harness.data.split import split_training, stratified_samples
from harness.spec import DataSpec

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


SPEC = DataSpec(
    name="fashion_mnist", num_classes=3, channels=1, image_size=28, train_images=40, val_images=10, test_images=20
)
RESAMPLED = SPEC.model_copy(update={"resample_train": True})


def test_every_replicate_trains_on_the_same_images_unless_the_recipe_draws_them():
    first, second = (split_training(LABELS, SPEC, replicate=replicate) for replicate in (0, 1))
    assert all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


def test_a_replicate_draws_training_images_that_are_the_same_for_all_rows():
    fixed, _ = split_training(LABELS, SPEC, replicate=0)
    drawn = [split_training(LABELS, RESAMPLED, replicate=replicate) for replicate in (0, 1)]
    for held_out, trained in drawn:
        assert np.array_equal(held_out, fixed)
        assert not set(held_out) & set(trained)
        assert len(set(trained)) == 40
        assert list(np.bincount(LABELS[trained])) == [20, 12, 8]
    assert len(set(drawn[0][1]) & set(drawn[1][1])) < 40
    assert np.array_equal(drawn[1][1], split_training(LABELS, RESAMPLED, replicate=1)[1])


def test_all_images_cannot_be_drawn_anew():
    with pytest.raises(ValidationError, match="resample_train draws train_images of the training set"):
        DataSpec(name="fashion_mnist", num_classes=3, channels=1, image_size=28, val_images=0, resample_train=True)
