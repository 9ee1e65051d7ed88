import numpy as np
import pytest

from harness.statistics import estimate_effects

FACTORS = {"a": ("off", "on"), "b": ("off", "on"), "c": ("x", "y", "z")}


def all_points() -> list[dict[str, str]]:
    return [{"a": a, "b": b, "c": c} for a in FACTORS["a"] for b in FACTORS["b"] for c in FACTORS["c"]]


def by_name(points, measured):
    return {effect.parts: effect.values for effect in estimate_effects(FACTORS, points, measured)}


def make_top1(point: dict[str, str]) -> float:
    """80, a adds 1 and beside b another 0.5; z adds 2, less 1 where a is on."""
    a, b, z = point["a"] == "on", point["b"] == "on", point["c"] == "z"
    return 80 + a + 0.5 * a * b + 2 * z - a * z


def test_every_factor_and_pair_has_its_effects():
    measured = np.zeros((12, 1))
    parts = [
        tuple(factor for factor, _ in effect.parts) for effect in estimate_effects(FACTORS, all_points(), measured)
    ]
    assert parts == [("a",), ("b",), ("c",), ("c",), ("a", "b"), ("a", "c"), ("a", "c"), ("b", "c"), ("b", "c")]


def test_effects_are_differences_of_means_over_the_other_factors():
    points = all_points()
    rng = np.random.default_rng(0)
    measured = rng.normal(80, 1, size=(12, 3))
    found = by_name(points, measured)
    on, off = (np.array([point["a"] == level for point in points]) for level in ("on", "off"))
    assert found[("a", "on"),] == pytest.approx(measured[on].mean(0) - measured[off].mean(0))
    z, x = (np.array([point["c"] == level for point in points]) for level in ("z", "x"))
    assert found[("c", "z"),] == pytest.approx(measured[z].mean(0) - measured[x].mean(0))
    changed = (measured[on & z].mean(0) - measured[off & z].mean(0)) - (
        measured[on & x].mean(0) - measured[off & x].mean(0)
    )
    assert found[("a", "on"), ("c", "z")] == pytest.approx(changed)


@pytest.mark.parametrize("absent", [{}, {"a": "off", "b": "off", "c": "x"}], ids=["all combinations", "one absent"])
def test_what_was_put_in_comes_out(absent):
    points = [point for point in all_points() if not absent or not absent.items() <= point.items()]
    found = by_name(points, np.array([[make_top1(point)] for point in points]))
    expected = {
        (("a", "on"),): 1 + 0.25 - 1 / 3,
        (("b", "on"),): 0.25,
        (("c", "y"),): 0,
        (("c", "z"),): 1.5,
        (("a", "on"), ("b", "on")): 0.5,
        (("a", "on"), ("c", "z")): -1,
        (("b", "on"), ("c", "z")): 0,
    }
    assert {parts: found[parts][0] for parts in expected} == pytest.approx(expected, abs=1e-9)


def test_what_the_combinations_do_not_tell_has_no_value():
    points = [point for point in all_points() if point["c"] != "z"]
    found = by_name(points, np.array([[make_top1(point)] for point in points]))
    assert found[("c", "y"),] == pytest.approx((0.0,))
    assert found[("c", "z"),] is None
    assert found[("a", "on"), ("c", "z")] is None
    assert found[("a", "on"),] is None


def test_nothing_measured_gives_no_values():
    assert {effect.values for effect in estimate_effects(FACTORS, [], np.zeros((0, 0)))} == {None}
