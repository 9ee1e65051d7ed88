from itertools import combinations, product

from .covering import choose_pairwise


def test_every_two_levels_that_meet_in_a_case_meet_in_a_chosen_one() -> None:
    cases = [case for case in product("abcdef", "gh", "ijk", "lmn") if case[:2] != ("a", "g")]
    chosen = [cases[number] for number in choose_pairwise(cases)]
    met, chosen_met = ({pair for case in some for pair in combinations(case, 2)} for some in (cases, chosen))
    assert chosen_met == met
    assert len(chosen) <= 24 < len(cases)
