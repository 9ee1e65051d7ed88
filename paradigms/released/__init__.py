"""Released weights of others under the names of our models, one file per model family.

A row of `FAMILIES` is a naming of checkpoints; its rules take every tensor exactly once. What was read for each, and
what is left out, stands in its file. No released file was at hand: names and shapes are those of the code.
"""

from pathlib import Path

from torch import Tensor

from paradigms.released import deit, swin, volo
from paradigms.released.checkpoint import read_weights
from paradigms.released.family import Family, Weights

__all__ = ["FAMILIES", "convert_released", "describe_families", "find_family", "load_released", "read_weights"]

FAMILIES: dict[str, Family] = {**swin.FAMILIES, **volo.FAMILIES, **deit.FAMILIES}
"""By name; no two signatures fit one file."""


def load_released(path: Path | str) -> dict[str, Tensor]:
    """Read a released checkpoint (torch's format without code in it, or safetensors) for `load_state_dict` of ours.

    Raises:
        ValueError: the file has no weights, or those of no family in `FAMILIES`, or tensors that no rule takes.
    """
    return convert_released(read_weights(path))


def convert_released(weights: Weights) -> dict[str, Tensor]:
    """Rename, split and turn released tensors into those of our models.

    Raises:
        ValueError: no family has these names, or a tensor is left over, has an impossible shape, is of whole numbers,
            or two become one.
    """
    family = find_family(weights)
    if family is None:
        raise ValueError(describe_families(weights))
    return family.convert(weights)


def find_family(weights: Weights) -> Family | None:
    """The family that has these names; None: no known one."""
    return next((family for family in FAMILIES.values() if family.signature <= weights.keys()), None)


def describe_families(weights: Weights) -> str:
    """That weights are of none, and which there are."""
    known = ", ".join(f"{name} ({family.source})" for name, family in FAMILIES.items())
    return f"weights of no known family, their first name is {next(iter(weights), None)!r} (known: {known})"
