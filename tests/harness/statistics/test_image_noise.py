"""The noise of the test images: found again in simulated tables, apart from the noise of training."""

import numpy as np
import pytest

from harness.statistics import Comparison, ImageNoise, add_image_noise, compare, find_image_noise
from tests.harness.statistics.simulation import draw_normal, to_scores

SEEDS, IMAGES = 6, 2_000


def draw_differences(rng, *, seed_sd=0.5, image_sd=20.0, rest_sd=40.0):
    seeds, images = rng.normal(0, seed_sd, (SEEDS, 1)), rng.normal(0, image_sd, IMAGES)
    return seeds + images + rng.normal(0, rest_sd, (SEEDS, IMAGES))


@pytest.mark.parametrize("image_sd", [10.0, 20.0, 40.0])
def test_the_error_of_images_is_found_apart_from_the_noise_of_training(image_sd):
    rng = np.random.default_rng(0)
    found = [find_image_noise(draw_differences(rng, image_sd=image_sd)).error ** 2 for _ in range(50)]
    assert np.mean(found) == pytest.approx(image_sd**2 / IMAGES, rel=0.05)


def test_images_that_only_training_moves_add_nothing():
    rng = np.random.default_rng(1)
    found = [find_image_noise(draw_differences(rng, image_sd=0.0)).error for _ in range(50)]
    assert max(found) < 0.2 * 40 / np.sqrt(IMAGES)


def test_a_single_seed_does_not_tell_images_from_training():
    assert find_image_noise(np.zeros((1, 10))) is None


def test_differences_over_new_images_and_new_seeds_spread_as_both_errors_say():
    rng = np.random.default_rng(2)
    deltas, squares = [], []
    for _ in range(300):
        differences = draw_differences(rng)
        deltas.append(differences.mean())
        noise = find_image_noise(differences)
        squares.append(differences.mean(axis=1).var(ddof=1) / SEEDS + noise.error**2)
    assert np.mean(squares) == pytest.approx(np.var(deltas), rel=0.2)


def test_without_noise_of_images_every_comparison_stays():
    scores = to_scores(draw_normal(np.random.default_rng(3), 5))
    compared = [*compare(scores, "row 0").values()]
    again = add_image_noise(compared, [ImageNoise(0.0, 1_000)] * len(compared))
    for old, new in zip(compared, again, strict=True):
        assert (new.error, new.low, new.high, new.df) == pytest.approx((old.error, old.low, old.high, old.df))
        assert new.p == pytest.approx(old.p, rel=0.02)  # the correlation is taken to be 1/2


def test_more_noise_makes_intervals_wider_and_p_values_larger():
    item = Comparison(7, 1.0, 0.4, 1.6, 0.01, error=0.3, df=20.0)
    (wider,) = add_image_noise([item], [ImageNoise(0.4, 1_000)])
    assert wider.error == pytest.approx(0.5)
    assert wider.interval == pytest.approx((0.0, 2.0))
    assert wider.p > item.p
    assert wider.df > item.df
