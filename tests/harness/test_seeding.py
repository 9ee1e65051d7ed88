from itertools import combinations

import pytest

from harness.seeding import seed_for


@pytest.mark.parametrize(
    ("identity", "seed"),
    [
        (("split",), 6236696046367234471),
        (("order", 0, 1), 5488810989431552561),
        (("init", "head.fc.weight", 2), 6046622306666593587),
    ],
    ids=str,
)
def test_seeds_never_change(identity: tuple[str | int, ...], seed: int) -> None:
    """Frozen: every result that was ever stored depends on them."""
    assert seed_for(*identity) == seed


def test_each_name_has_a_seed_of_its_own() -> None:
    names = [("a", 1), ("a", "1"), ("a", 1, 1), ("a", 11), ("a1",), ("b", 1), ("a", "1\x1f1")]
    for first, second in combinations(names, 2):
        assert seed_for(*first) != seed_for(*second), (first, second)


def test_a_seed_fits_every_generator() -> None:
    assert all(0 <= seed_for("order", number) < 2**63 for number in range(100))
