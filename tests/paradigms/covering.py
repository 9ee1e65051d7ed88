"""The fast suite checks every two levels that can meet together in some case; the slow one checks every case."""

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import combinations, product
from typing import Any

import pytest


def choose_pairwise(cases: Sequence[Sequence[Any]]) -> list[int]:
    """Few of the cases, by their numbers, in which every two levels meet that meet in any; greedily.

    A case is one level of each factor, in the same order.
    """
    pairs = [frozenset(combinations(enumerate(case), 2)) for case in cases]
    missing = set().union(*pairs)
    queue = [(-len(own), number) for number, own in enumerate(pairs)]
    heapify(queue)
    chosen = []
    while missing:
        _, number = heappop(queue)  # of bounds, which only fall: one that still holds is the largest
        gain = len(pairs[number] & missing)
        if queue and -gain > queue[0][0]:
            heappush(queue, (-gain, number))
        else:
            chosen.append(number)
            missing -= pairs[number]
    return sorted(chosen)


def pairwise(*factors: Iterable[Any]) -> list[Any]:
    """Parameters of a test: all combinations of levels, slow but for those in which every pair meets."""
    cases = list(product(*factors))
    fast = set(choose_pairwise(cases))
    return [pytest.param(*case, marks=() if at in fast else pytest.mark.slow) for at, case in enumerate(cases)]
