"""The names of all levels and the frozen description of one operator. Imports no torch, no timm.

The operator is Eq. 4 of arXiv:2112.12786: logits from a set of terms, a normalization, a neighborhood, an aggregation.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

TERMS = ("query_key", "query_position", "position_key", "position_bias")
NORMALIZATIONS = ("softmax", "filter_norm", "identity")
NEIGHBORHOODS = ("local_window", "sliding_window")
AGGREGATIONS = ("weighted_sum",)
BACKENDS = ("auto", "reference", "dense", "torch", "cpu", "triton")
BACKBONES = ("swin", "volo", "deit")

BORDERS = {
    "local_window": ("project", "mask", "zero"),
    "sliding_window": ("zero", "mask", "project", "shift"),
}
"""The outside rules that each neighborhood knows, its default first."""

_WINDOWS = ("local_window", frozenset(BORDERS["local_window"]))
_CENTRED = ("sliding_window", frozenset({"zero", "mask", "project"}))
_CLAMPED = ("sliding_window", frozenset({"shift"}))
_ANY, _SOFTMAX = frozenset(NORMALIZATIONS), frozenset({"softmax"})

KERNEL_CASES = {
    "dense": (("sliding_window", frozenset({"zero", "mask"}), _ANY),),
    "torch": ((*_WINDOWS, _ANY), (*_CENTRED, _ANY), (*_CLAMPED, _SOFTMAX)),
    "cpu": ((*_WINDOWS, _SOFTMAX), (*_CENTRED, _ANY), (*_CLAMPED, _SOFTMAX)),
    "triton": ((*_CENTRED, _ANY), (*_CLAMPED, _SOFTMAX)),
}
"""What a backend, forced by its name, can compute: neighborhoods, their borders, normalizations. Others: everything."""

MINIMUM_TAPS = {"filter_norm": 2}
"""How many taps a normalization needs; one where it is not listed."""

FIELDS_WITHOUT_EFFECT = {
    "local_window": frozenset({"kernel_size", "dilation"}),
    "sliding_window": frozenset({"window_size", "shift_size"}),
}

Size = int | tuple[int, int]


def unknown_name(kind: str, name: object, known: tuple[str, ...]) -> str:
    """The message for a name that is not known: the nearest one, then all of them."""
    nearest = get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown {kind} {name!r}{hint} (known: {', '.join(known)})"


def to_pair(size: Size) -> tuple[int, int]:
    """Rows and columns of a size: an int means both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _require(kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ValueError(unknown_name(kind, name, known))


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """One point of the space of Eq. 4 (arXiv:2112.12786); Swin's local self-attention by default.

    Sizes are in pixels of the feature map: an int, or rows and columns.

    Attributes:
        parameterization: the terms that are added up to the logits, in any order; stored in the order of `TERMS`.
        normalization: how logits become weights.
        neighborhood: which keys a query sees (the paper's Φ).
        aggregation: how weights meet values.
        window_size: of `local_window`.
        shift_size: of `local_window`; None lets the backbone alternate (Swin: half a window in every second block).
        kernel_size: of `sliding_window`; odd.
        dilation: of `sliding_window`; distance between two taps.
        border: the rule for taps outside the map; None means the neighborhood's default.
        backend: which kernels compute it; `auto` chooses.

    Raises:
        ValueError: a name is unknown or a size is impossible; the message says what is possible.
    """

    parameterization: tuple[str, ...] = ("query_key", "position_bias")
    normalization: str = "softmax"
    neighborhood: str = "local_window"
    aggregation: str = "weighted_sum"
    window_size: Size = 7
    shift_size: Size | None = None
    kernel_size: Size = 7
    dilation: Size = 1
    border: str | None = None
    backend: str = "auto"

    def __post_init__(self) -> None:
        for term in self.parameterization:
            _require("term", term, TERMS)
        if not self.parameterization:
            raise ValueError(f"parameterization needs at least one term of {', '.join(TERMS)}")
        if len(set(self.parameterization)) != len(self.parameterization):
            raise ValueError(f"a term stands twice in parameterization, got {list(self.parameterization)}")
        object.__setattr__(self, "parameterization", tuple(t for t in TERMS if t in self.parameterization))
        _require("normalization", self.normalization, NORMALIZATIONS)
        _require("neighborhood", self.neighborhood, NEIGHBORHOODS)
        _require("aggregation", self.aggregation, AGGREGATIONS)
        _require("backend", self.backend, BACKENDS)
        if self.border is not None:
            _require(f"border of {self.neighborhood}", self.border, BORDERS[self.neighborhood])
        self._check_backend()
        self._check_sizes()
        self._check_taps()

    def _check_backend(self) -> None:
        asked = (self.neighborhood, self.outside_rule, self.normalization)
        cases = KERNEL_CASES.get(self.backend)
        if cases is not None and not any(asked[0] == n and asked[1] in b and asked[2] in m for n, b, m in cases):
            raise ValueError(f"backend {self.backend!r} has no kernel for {', '.join(asked)}; use 'auto'")

    def _check_taps(self) -> None:
        size = to_pair(self.window_size if self.neighborhood == "local_window" else self.kernel_size)
        needed = MINIMUM_TAPS.get(self.normalization, 1)
        if size[0] * size[1] < needed:
            raise ValueError(f"{self.normalization} needs at least {needed} taps, got a neighborhood of {size}")

    def _check_sizes(self) -> None:
        for name in ("window_size", "kernel_size", "dilation"):
            if min(to_pair(getattr(self, name))) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if any(size % 2 == 0 for size in to_pair(self.kernel_size)):
            raise ValueError(f"kernel_size of sliding_window must be odd, got {self.kernel_size}")
        if self.shift_size is not None:
            shift, window = to_pair(self.shift_size), to_pair(self.window_size)
            if any(not 0 <= s < w for s, w in zip(shift, window, strict=True)):
                raise ValueError(f"shift_size must be in [0, window_size), got {self.shift_size} of {self.window_size}")

    @property
    def outside_rule(self) -> str:
        """The border in force: the field, or the neighborhood's default."""
        return self.border or BORDERS[self.neighborhood][0]

    def to_canonical(self) -> dict[str, Any]:
        """What distinguishes this operator from the default one: fields at their default or without effect left out."""
        ignored = FIELDS_WITHOUT_EFFECT[self.neighborhood]
        default, canonical = asdict(AttentionConfig()), asdict(self)
        canonical["border"] = None if self.outside_rule == BORDERS[self.neighborhood][0] else self.border
        for name in ("window_size", "shift_size", "kernel_size", "dilation"):
            if canonical[name] is not None:
                canonical[name] = list(to_pair(canonical[name]))
                default[name] = None if default[name] is None else list(to_pair(default[name]))
        return {
            name: sorted(value) if name == "parameterization" else value
            for name, value in canonical.items()
            if name not in ignored and value != default[name]
        }

    def levels(self) -> frozenset[str]:
        """Every level that this operator names; code of other levels cannot change its numbers."""
        return frozenset({*self.parameterization, self.normalization, self.neighborhood, self.aggregation})


LEVELS = frozenset({*TERMS, *NORMALIZATIONS, *NEIGHBORHOODS, *AGGREGATIONS, *BACKBONES})


def make_config(values: Mapping[str, Any], *, base: AttentionConfig | None = None) -> AttentionConfig:
    """Replace fields of `base` (Swin's attention when None) by plain values, lists included.

    Raises:
        ValueError: a field is unknown or its value impossible.
    """
    known = tuple(field.name for field in fields(AttentionConfig))
    for name in values:
        _require("field", name, known)
    start = {} if base is None else asdict(base)
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return AttentionConfig(**{**start, **plain})
