"""Checks names of timm's optimizers, interpolations and policies when a spec is read."""

import re
from collections.abc import Mapping

from paradigms.facts import unknown_name

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
COMMON_OPTIMIZERS = ("adam", "adamw", "lamb", "lion", "muon", "nmuon", "sgd")
"""Optimizers that are known without importing timm, which takes seconds."""

LOOKAHEAD = "lookahead_"
"""The prefix of timm's wrapper around another optimizer, as in `lookahead_adamw`."""

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
"""The parts of timm's policies, `NAME-KEYvalue-KEYvalue`, with patterns of their values. timm itself ignores parts
without a number, and one of two equal parts."""


def check_optimizer(name: str) -> str:
    """Check that timm has an optimizer of this name, and that it can be built here and needs only gradients.

    Raises:
        ValueError: this is not the case; the message gives the nearest name or the reason.
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
    """Build the optimizer and do one step: some need a package, a GPU, a closure or second derivatives."""
    import torch
    from timm.optim import create_optimizer_v2

    parameter = torch.nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.ones(2, 2)
    try:
        create_optimizer_v2([parameter], opt=name, lr=1e-3).step()
    except (AssertionError, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"timm's optimizer {name!r} cannot be used here: {error}") from None


def check_policy(policy: str) -> str:
    """Check that every part of a policy of timm has an effect.

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
    """The key of a part: the letters before the number; `t`, the set of transforms, is followed by letters."""
    if part.startswith("t"):
        return "t"
    letters = re.match("[^0-9.]*", part)
    assert letters is not None
    return letters[0]
