"""Checks names of timm's optimizers, interpolations and policies when a spec is read."""

import re
from collections.abc import Mapping

from paradigms.facts import unknown_name

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
COMMON_OPTIMIZERS = ("adam", "adamw", "lamb", "lion", "muon", "nmuon", "sgd")
"""Those that are known without asking timm, whose import takes seconds."""

LOOKAHEAD = "lookahead_"
"""What timm puts another optimizer inside for, as in `lookahead_adamw`."""

_COUNT, _SWITCH, _NUMBER = r"[1-9]\d*", "[01]", r"\d+(\.\d+)?"
_NOISE = {"mstd": _NUMBER}
POLICIES: Mapping[str, Mapping[str, str]] = {
    "rand": {
        **_NOISE,
        "m": r"\d+",
        "n": _COUNT,
        "p": r"0(\.\d+)?|1(\.0+)?",
        "mmax": _COUNT,
        "inc": _SWITCH,
        "t": "weights|3a|3aw",
    },
    "augmix": {**_NOISE, "m": r"\d+", "w": _COUNT, "d": _COUNT, "a": _NUMBER, "b": _SWITCH},
    **dict.fromkeys(("original", "originalr", "v0", "v0r", "3a"), _NOISE),
}
"""The parts of timm's policies, `NAME-KEYvalue-KEYvalue`, and what their values look like. timm itself ignores a part
without a number, and all but the last, or the first, of two equal ones."""


def check_optimizer(name: str) -> str:
    """A name that timm knows, of an optimizer that can be built here and needs nothing but gradients.

    Raises:
        ValueError: it is none; the message gives the nearest name, or the reason.
    """
    inner = name.removeprefix(LOOKAHEAD)
    if inner in COMMON_OPTIMIZERS:
        return name
    from timm.optim import list_optimizers

    known = tuple(str(known) for known in list_optimizers())
    if inner not in known:
        raise ValueError(unknown_name("optimizer", name, [f"{name[: -len(inner)]}{one}" for one in known]))
    _try_step(name)
    return name


def _try_step(name: str) -> None:
    """Build the optimizer and let it do one step: some need a package, a GPU, a closure or second derivatives."""
    import torch
    from timm.optim import create_optimizer_v2

    parameter = torch.nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.ones(2, 2)
    try:
        create_optimizer_v2([parameter], opt=name, lr=1e-3).step()
    except (AssertionError, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"timm's optimizer {name!r} cannot be used here: {error}") from None


def check_policy(policy: str) -> str:
    """A policy of timm's in which every part has an effect.

    Raises:
        ValueError: the policy or one of its parts is unknown, has an impossible value, or occurs twice.
    """
    name, *parts = policy.split("-")
    if name not in POLICIES:
        raise ValueError(unknown_name("policy", name, tuple(POLICIES)))
    known, seen = POLICIES[name], set[str]()
    for part in parts:
        key = _find_key(part)
        if key not in known:
            raise ValueError(f"{unknown_name(f'part of policy {name}', key, tuple(known))}, got {policy!r}")
        if re.fullmatch(known[key], part[len(key) :]) is None:
            raise ValueError(f"{key!r} needs a value like {known[key]}, got {part!r} in {policy!r}")
        if key in seen:
            raise ValueError(f"{key!r} occurs twice in {policy!r}")
        seen.add(key)
    return policy


def _find_key(part: str) -> str:
    """The letters before the number; the set of transforms, `t`, is named in letters itself."""
    if part.startswith("t"):
        return "t"
    letters = re.match("[^0-9.]*", part)
    assert letters is not None
    return letters[0]
