"""Laws that every level satisfies; the level's own declarations are the oracle.

A law is a function of an operator's config that raises `LawBroken`. `LAWS` has the laws of every operator.
`check_level` checks all of them for a custom level. `list_configs` returns the operators that it checks, for
parametrized tests:

    @pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
    @pytest.mark.parametrize("config", list_configs("normalization", "mine").values())
    def test_my_level_satisfies_the_laws(law, config):
        law(config)
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

import torch

from paradigms.config import TERMS, AttentionConfig
from paradigms.facts import NEIGHBORHOODS, ROOMS, unknown_name
from paradigms.laws.operator import (
    declares_its_parameters,
    declares_the_key_of_a_zero_input,
    depends_on_its_neighborhood_alone,
    depends_on_its_neighborhood_on_a_small_map,
    equals_the_reference,
    has_the_gradients_of_finite_differences,
    keeps_shape_and_dtype,
    moves_with_its_input,
    trains_every_parameter,
)
from paradigms.laws.room import keeps_what_it_declares, values_taps_outside
from paradigms.laws.specimen import VARIANTS, LawBroken, choose_sizes

__all__ = ["LAWS", "LAWS_OF_ROOMS", "Law", "LawBroken", "check_level", "list_configs"]

Law = Callable[[AttentionConfig], None]

LAWS: dict[str, Law] = {
    "declares the key of a zero input": declares_the_key_of_a_zero_input,
    "keeps shape and dtype": keeps_shape_and_dtype,
    "trains every parameter": trains_every_parameter,
    "declares its parameters": declares_its_parameters,
    "depends on its neighborhood alone": depends_on_its_neighborhood_alone,
    "depends on its neighborhood on a small map": depends_on_its_neighborhood_on_a_small_map,
    "moves with its input": moves_with_its_input,
    "has the gradients of finite differences": has_the_gradients_of_finite_differences,
    "equals the reference": equals_the_reference,
}
"""Laws of every operator, by name."""


LAWS_OF_ROOMS: dict[str, dict[str, Callable[[str], None]]] = {
    "normalization": {
        "keeps what it declares": partial(keeps_what_it_declares, masked=False),
        "keeps what it declares where taps are masked": partial(keeps_what_it_declares, masked=True),
    },
    "neighborhood": {"values taps outside": values_taps_outside},
}
"""Further laws of the levels of a room: functions of the name of a level."""


def list_configs(room: str, name: str) -> dict[str, AttentionConfig]:
    """The operators in which a level is checked: one for every neighborhood and border that it supports.

    The other parts are softmax, all four terms and the weighted sum.

    Raises:
        ValueError: the room does not exist, or has no level of this name.
    """
    if room not in ROOMS:
        raise ValueError(unknown_name("room", room, tuple(ROOMS)))
    if name not in ROOMS[room]:
        raise ValueError(unknown_name(room, name, tuple(ROOMS[room])))
    found = {}
    for neighborhood in [name] if room == "neighborhood" else NEIGHBORHOODS:
        variants = {"": {}, **VARIANTS.get(neighborhood, {})}
        for border, (suffix, fields) in product(NEIGHBORHOODS[neighborhood].borders, variants.items()):
            levels: dict[str, Any] = {"parameterization": TERMS, "neighborhood": neighborhood, "border": border}
            levels[room] = (name,) if room == "parameterization" else name
            sizes = choose_sizes(levels["parameterization"])
            try:
                found[f"{neighborhood}{suffix}-{border}"] = AttentionConfig(**{**levels, **sizes, **fields})
            except ValueError:  # the level does not support this neighborhood or border
                continue
    return found


def _print_to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def check_level(room: str, name: str, *, show: Callable[[str], object] = _print_to_stderr) -> int:
    """Check every law on a level and return the number of checks.

    It takes up to a minute; one line per law reports the progress.

    Args:
        room: `parameterization`, `normalization`, `neighborhood` or `aggregation`.
        name: name of the level, as in an experiment.
        show: is called with each line; prints to stderr by default.

    Raises:
        ValueError: there is no such level.
        LawBroken: the level breaks a law; the message names the law and the operator.
    """
    configs, own = list_configs(room, name), LAWS_OF_ROOMS.get(room, {})
    total = len(own) + len(LAWS)
    with _one_thread():
        for number, (law, check) in enumerate(own.items(), start=1):
            show(f"[{number}/{total}] {name} {law}")
            _check(f"{room} {name}: {law}", partial(check, name))
        for number, (law, keep) in enumerate(LAWS.items(), start=len(own) + 1):
            show(f"[{number}/{total}] {name} {law}, in {len(configs)} operators")
            for place, config in configs.items():
                _check(f"{room} {name}: {law}, in {place}", partial(keep, config))
    return len(own) + len(configs) * len(LAWS)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: on maps as small as those of the laws, several threads are slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _check(title: str, check: Callable[[], None]) -> None:
    try:
        check()
    except LawBroken as broken:
        raise LawBroken(f"{title}: {broken}") from None
