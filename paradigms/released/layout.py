"""The layout of released checkpoints: their names, and the mapping of each tensor."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

Weights = Mapping[str, Tensor]
Convert = Callable[[re.Match[str], Weights], dict[str, Tensor]]

KIND = r"(weight|bias)"
"""The pattern of the last part of most parameter names."""


COUNTER = "num_batches_tracked"
"""The only tensor of a model with an integer dtype: the number of batches in batch normalization."""


@dataclass(frozen=True)
class CheckpointLayout:
    """The names and shapes of tensors in the checkpoints of one code base.

    Attributes:
        source: the code base.
        signature: names that occur together in this layout only.
        rules: the conversion of a tensor, by a pattern of its whole name.
        left_out: a description of the learned tensors that our models do not use.
    """

    source: str
    signature: frozenset[str]
    rules: Mapping[str, Convert]
    left_out: str = ""

    def convert(self, weights: Weights) -> dict[str, Tensor]:
        """Rename, split and reorder tensors for our models.

        Raises:
            ValueError: a tensor is left over, has an impossible shape or an integer dtype, or two tensors get the same
                name.
        """
        converted: dict[str, Tensor] = {}
        left_over = []
        for name in weights:
            matches = [(convert, match) for rule, convert in self.rules.items() if (match := re.fullmatch(rule, name))]
            if not matches:
                left_over.append(name)
                continue
            ((convert, match),) = matches  # the rules of a layout exclude each other
            made = self._apply(convert, match, weights)
            if twice := made.keys() & converted.keys():
                raise ValueError(f"two tensors of {self.source} become {min(twice)}: {name} and another one")
            converted |= made
        if left_over:
            raise ValueError(f"no rule of {self.source} takes {', '.join(sorted(left_over))}")
        return converted

    def _apply(self, convert: Convert, match: re.Match[str], weights: Weights) -> dict[str, Tensor]:
        """Convert one tensor; errors of a rule mean that shapes or other tensors are not as expected."""
        name = match[0]
        try:
            made = convert(match, weights)
        except (AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
            shape = tuple(weights[name].shape)
            raise ValueError(f"{name} of shape {shape} is not a tensor of {self.source}: {error}") from error
        if any(not tensor.is_floating_point() and not key.endswith(COUNTER) for key, tensor in made.items()):
            raise ValueError(f"{name} holds {weights[name].dtype}, not floating point")
        return made


def keep(match: re.Match[str], weights: Weights) -> dict[str, Tensor]:
    """The same tensor under the same name."""
    return {match[0]: weights[match[0]]}


def drop(match: re.Match[str], weights: Weights) -> dict[str, Tensor]:  # noqa: ARG001 - what every rule takes
    """Drop a tensor: an index or a mask that follows from sizes, or a tensor of `left_out`."""
    return {}


def rename(template: str) -> Convert:
    r"""Another name; `\1` stands for a group of the pattern."""
    return lambda match, weights: {match.expand(template): weights[match[0]]}
