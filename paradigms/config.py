"""The names of all levels and the frozen description of one operator. Imports no torch, no timm.

The operator is Eq. 4 of arXiv:2112.12786: logits from a set of terms, a normalization, a neighborhood, an aggregation.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from math import inf
from operator import contains
from typing import Any, NamedTuple

TERMS = ("query_key", "query_position", "position_key", "position_bias")
NORMALIZATIONS = ["softmax", "filter_norm", "identity"]
PARAMETERIZATIONS = [*TERMS, "hadamard", "hadamard_conv", "involution", "ddf", "dynamic_conv", "outlook"]
"""Terms add up; of the others one stands alone."""

AGGREGATIONS = ["weighted_sum", "ghost_head", "channel_filter"]
GHOST_MAPS = ("grouped", "interleaved")
GHOST_STARTS = ("normal", "ones")
COMBINATIONS = ("mul", "add")
PROJECTIONS = ("linear", "none", "batch_norm")
INITIALIZATIONS = ("backbone", "released")
BACKENDS = ("auto", "reference", "dense", "torch", "cpu", "triton")
BACKBONES = ["swin", "volo", "deit"]


@dataclass(frozen=True, kw_only=True)
class NeighborhoodFacts:
    """What is known of a neighborhood without torch.

    Attributes:
        symbol: the paper's (arXiv:2112.12786).
        borders: the outside rules that it knows, its default first.
        size: the field that says how large it is.
        span: how many such sizes a query sees along each axis.
        fields: the further fields of `AttentionConfig` that it reads and others may not.
        runs: other neighborhoods whose kernels it may be computed by.
    """

    symbol: str
    borders: tuple[str, ...]
    size: str
    span: int = 1
    fields: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


NEIGHBORHOOD_FACTS = {
    "local_window": NeighborhoodFacts(
        symbol="Ω", borders=("project", "mask", "zero"), size="window_size", fields=("shift_size",)
    ),
    "sliding_window": NeighborhoodFacts(
        symbol="Θ", borders=("zero", "mask", "project", "shift"), size="kernel_size", fields=("dilation",)
    ),
    "sliding_chunk": NeighborhoodFacts(
        symbol="Θ",
        borders=("mask", "zero", "project"),
        size="chunk_size",
        span=3,
        fields=("exact",),
        runs=("sliding_window",),
    ),
}

NEIGHBORHOODS = list(NEIGHBORHOOD_FACTS)
BORDERS = {name: facts.borders for name, facts in NEIGHBORHOOD_FACTS.items()}
"""The outside rules that each neighborhood knows, its default first."""

_CENTRED = frozenset({"zero", "mask", "project"})
_SOFTMAX = frozenset({"softmax"})


class KernelCase(NamedTuple):
    """What a backend can compute, in the names of `paradigms.kernels`.

    Attributes:
        neighborhood: one of `NEIGHBORHOODS`.
        borders: of these.
        normalizations: of these.
        aggregations: kinds of `paradigms.functional.Aggregation`.
        scores: what parameterizations make; see `paradigms.functional.Scores`.
    """

    neighborhood: str
    borders: frozenset[str]
    normalizations: Collection[str] = NORMALIZATIONS
    aggregations: frozenset[str] = frozenset({"weighted_sum", "added"})
    scores: frozenset[str] = frozenset({"terms"})

    def holds(self, neighborhood: str, levels: tuple[str, str, str, str]) -> bool:
        """Whether a neighborhood's border, normalization, kind of aggregation and scores are among these."""
        return neighborhood == self.neighborhood and all(map(contains, self[1:], levels))


_FILTER = frozenset({"filtered"})
_FILTERED = frozenset({"weighted_sum", "added", "filtered"})
_COMPOSED = KernelCase(
    "sliding_window",
    _CENTRED,
    aggregations=_FILTERED,
    scores=frozenset({"terms", "shared_terms", "logits"}),
)
_TERMS = frozenset({"terms", "shared_terms"})
_CLAMPED = KernelCase("sliding_window", frozenset({"shift"}), _SOFTMAX)

KERNEL_CASES = {
    "dense": (KernelCase("sliding_window", frozenset({"zero", "mask"})),),
    "torch": (
        KernelCase("local_window", frozenset(BORDERS["local_window"]), aggregations=_FILTERED),
        _COMPOSED,
        _CLAMPED,
        KernelCase("sliding_chunk", frozenset(BORDERS["sliding_chunk"]), aggregations=_FILTERED),
    ),
    "cpu": (
        KernelCase("local_window", frozenset(BORDERS["local_window"]), _SOFTMAX),
        _COMPOSED,
        KernelCase("sliding_window", frozenset({"shift"}), aggregations=_FILTERED, scores=_TERMS),
        KernelCase("sliding_chunk", frozenset({"zero", "mask"}), aggregations=_FILTERED, scores=_TERMS),
        KernelCase("local_window", frozenset(BORDERS["local_window"]), aggregations=_FILTER, scores=_TERMS),
    ),
    "triton": (_COMPOSED, _CLAMPED),
}
"""What a backend, forced by its name, can compute. Others: everything."""

SCORES = {"hadamard": "shared_terms"} | dict.fromkeys(
    ("hadamard_conv", "involution", "ddf", "dynamic_conv", "outlook"), "logits"
)
"""What a parameterization makes, as kernels know it; `terms` where it is not listed."""

MINIMUM_TAPS = {"filter_norm": 2, "channel_filter": 2}
"""How many taps a normalization or an aggregation needs; one where it is not listed."""

OWN_FIELDS = {
    "hadamard_conv": frozenset({"group_width", "hadamard_size", "initialization"}),
    "ghost_head": frozenset({"ghost_lambda", "ghost_gamma", "ghost_heads", "ghost_map", "ghost_start", "ghost_rate"}),
    "channel_filter": frozenset({"se_ratio", "combine"}),
}
"""Fields that one level alone reads."""

CENTRED_ONLY = {
    "hadamard_conv": frozenset({"zero", "mask"}),
    "involution": _CENTRED,
    "ddf": _CENTRED,
    "dynamic_conv": _CENTRED,
    "outlook": _CENTRED,
    "channel_filter": _CENTRED,
}
"""Levels that go with the taps around each query of a sliding window alone, and the borders that they know."""

BORDERS_WITHOUT_BIAS = {"batch_norm": frozenset({"zero", "mask", "shift"})}
"""Projections that turn a zero input into what no parameter says, and the borders that do not ask for it."""

_READ = {name: frozenset({facts.size, *facts.fields}) for name, facts in NEIGHBORHOOD_FACTS.items()}
FIELDS_WITHOUT_EFFECT = {name: frozenset().union(*_READ.values()) - read for name, read in _READ.items()}
"""What only other neighborhoods read."""

Size = int | tuple[int, int]


MAX_SHOWN = 200
"""Characters of a wrong value that a message shows."""


def shorten(text: str) -> str:
    """A value in a message: its beginning where it is very long."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text):,} characters)"


def unknown_name(kind: str, name: object, known: Sequence[str]) -> str:
    """The message for a name that is not known: the nearest one, then all of them."""
    nearest = get_close_matches(str(name)[:MAX_SHOWN], known, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown {kind} {shorten(repr(name))}{hint} (known: {', '.join(known)})"


def to_pair(size: Size) -> tuple[int, int]:
    """Rows and columns of a size: an int means both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _require(kind: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ValueError(unknown_name(kind, name, known))


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """One point of the space of Eq. 4 (arXiv:2112.12786); Swin's local self-attention by default.

    Sizes are in pixels of the feature map: an int, or rows and columns.

    Attributes:
        parameterization: the terms that are added up to the logits, in any order; stored in the order of `TERMS`. Or
            the name of another parameterization.
        normalization: how logits become weights.
        neighborhood: which keys a query sees (the paper's Φ).
        aggregation: how weights meet values.
        window_size: of `local_window`.
        shift_size: of `local_window`; None lets the backbone alternate (Swin: half a window in every second block).
        kernel_size: of `sliding_window`; odd.
        dilation: of `sliding_window`; distance between two taps.
        chunk_size: of `sliding_chunk`; a query sees three of them along each axis.
        exact: of `sliding_chunk`; whether it sees only what lies within one `chunk_size` of itself.
        border: the rule for taps outside the map; None means the neighborhood's default.
        group_width: of `hadamard_conv`; channels of a group of its convolution.
        hadamard_size: of `hadamard_conv`; of its convolution, odd. None: as large as the neighborhood.
        ghost_lambda: of `ghost_head`; λ of Eq. 8, at least 0.
        ghost_gamma: of `ghost_head`; γ of Eq. 8, at least 0.
        ghost_heads: of `ghost_head`; how many heads it makes: a number, `2x` of the heads, `C` for one a channel.
        ghost_map: of `ghost_head`; which head a ghost has: `grouped` as released, `interleaved` as printed.
        ghost_start: of `ghost_head`; how the matrix O starts: standard `normal` as in Algorithm 1, or as `ones`, so
            that λ changes nothing at the start. Without effect at λ = 0.
        ghost_rate: of `ghost_head`; the factor of the learning rate of the matrix S, above 0. Without effect at γ = 0.
        se_ratio: of `channel_filter`; its hidden channels for each channel, above 0.
        combine: of `channel_filter`; how filters meet weights, `mul` or `add`.
        projections: `linear` of the values and of the output; `none` (values are the input, the output is their sum);
            or as around the depthwise convolutions of arXiv:2106.04263, of the input and of the output, with
            `batch_norm` and ReLU.
        initialization: of `hadamard_conv`; how its projections to queries, keys, values and logits start: by the rule
            of the `backbone` for linear layers, or as `released`, where they are convolutions (torch's own rule).
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
    chunk_size: Size = 3
    exact: bool = False
    border: str | None = None
    group_width: int = 4
    hadamard_size: Size | None = None
    ghost_lambda: float = 0.0
    ghost_gamma: float = 1.0
    ghost_heads: int | str = "C"
    ghost_map: str = "grouped"
    ghost_start: str = "normal"
    ghost_rate: float = 1.0
    se_ratio: float = 0.2
    combine: str = "mul"
    projections: str = "linear"
    initialization: str = "backbone"
    backend: str = "auto"

    def __post_init__(self) -> None:
        self._check_parameterization()
        _require("normalization", self.normalization, NORMALIZATIONS)
        _require("neighborhood", self.neighborhood, NEIGHBORHOODS)
        _require("aggregation", self.aggregation, AGGREGATIONS)
        _require("backend", self.backend, BACKENDS)
        if self.border is not None:
            _require(f"border of {self.neighborhood}", self.border, BORDERS[self.neighborhood])
        _require("ghost_map", self.ghost_map, GHOST_MAPS)
        _require("ghost_start", self.ghost_start, GHOST_STARTS)
        _require("combine", self.combine, COMBINATIONS)
        _require("projections", self.projections, PROJECTIONS)
        _require("initialization", self.initialization, INITIALIZATIONS)
        self._check_borders()
        self._check_sizes()
        self._check_taps()
        self._check_ghosts()
        self._check_backend()
        if not 0 < self.se_ratio < inf:
            raise ValueError(f"se_ratio must be a finite number above 0, got {self.se_ratio}")

    def _check_parameterization(self) -> None:
        for name in self.parameterization:
            _require("term", name, PARAMETERIZATIONS)
        if not self.parameterization:
            raise ValueError(f"parameterization needs at least one term of {', '.join(TERMS)}")
        if len(set(self.parameterization)) != len(self.parameterization):
            raise ValueError(f"a term stands twice in parameterization, got {list(self.parameterization)}")
        if len(self.parameterization) > 1 and not set(self.parameterization) <= set(TERMS):
            raise ValueError(f"only terms of Eq. 4 can be added up, got {list(self.parameterization)}")
        ordered = tuple(name for name in PARAMETERIZATIONS if name in self.parameterization)
        object.__setattr__(self, "parameterization", ordered)

    def _check_borders(self) -> None:
        got = f"got {self.neighborhood}, {self.outside_rule}"
        for level in (self.parameterization[0], self.aggregation):
            known = CENTRED_ONLY.get(level)
            if known and (self.neighborhood != "sliding_window" or self.outside_rule not in known):
                raise ValueError(f"{level} needs sliding_window with border {' or '.join(sorted(known))}, {got}")
        known = BORDERS_WITHOUT_BIAS.get(self.projections)
        if known and self.outside_rule not in known:
            raise ValueError(f"projections {self.projections!r} need a border of {', '.join(sorted(known))}; {got}")

    def _check_ghosts(self) -> None:
        for name in ("ghost_lambda", "ghost_gamma"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} must be a finite number of at least 0, got {getattr(self, name)}")
            object.__setattr__(self, name, float(getattr(self, name)))
        if not 0 < self.ghost_rate < inf:
            raise ValueError(f"ghost_rate must be a finite number above 0, got {self.ghost_rate}")
        known = self.ghost_heads in ("C", "2x") if isinstance(self.ghost_heads, str) else self.ghost_heads >= 1
        if not known:
            raise ValueError(f"ghost_heads must be C, 2x or a positive number, got {self.ghost_heads!r}")

    def _check_backend(self) -> None:
        made = SCORES.get(self.parameterization[0], "terms")
        asked = (self.outside_rule, self.normalization, self.aggregation_kind, made)
        cases = KERNEL_CASES.get(self.backend)
        if cases is not None and not any(case.holds(self.neighborhood, asked) for case in cases):
            room = ", ".join((self.neighborhood, self.outside_rule, self.normalization))
            levels = f"{' + '.join(self.parameterization)} and {self.aggregation}"
            raise ValueError(f"backend {self.backend!r} has no kernel for {room} with {levels}; use 'auto'")

    def _check_taps(self) -> None:
        facts = NEIGHBORHOOD_FACTS[self.neighborhood]
        rows, columns = to_pair(getattr(self, facts.size))
        size = facts.span * rows, facts.span * columns
        for level in (self.normalization, self.aggregation):
            needed = MINIMUM_TAPS.get(level, 1)
            if size[0] * size[1] < needed:
                raise ValueError(f"{level} needs at least {needed} taps, got a neighborhood of {size}")

    def _check_sizes(self) -> None:
        for name in ("window_size", "kernel_size", "dilation", "chunk_size"):
            if min(to_pair(getattr(self, name))) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if any(size % 2 == 0 for size in to_pair(self.kernel_size)):
            raise ValueError(f"kernel_size of sliding_window must be odd, got {self.kernel_size}")
        conv, kernel = to_pair(self.hadamard_size or self.kernel_size), to_pair(self.kernel_size)
        if any(not 1 <= size <= most or size % 2 == 0 for size, most in zip(conv, kernel, strict=True)):
            raise ValueError(f"hadamard_size must be odd and at most kernel_size, got {conv} of {kernel}")
        if self.parameterization == ("outlook",):
            dilation = to_pair(self.dilation)
            if dilation != (1, 1) or any(size % 4 != 1 for size in kernel):
                message = "outlook needs kernel_size 1, 5, 9, ... and dilation 1"
                raise ValueError(f"{message}, got kernel_size {self.kernel_size}, dilation {self.dilation}")
        if self.group_width < 1:
            raise ValueError(f"group_width must be at least 1, got {self.group_width}")
        if self.shift_size is not None:
            shift, window = to_pair(self.shift_size), to_pair(self.window_size)
            if any(not 0 <= s < w for s, w in zip(shift, window, strict=True)):
                raise ValueError(f"shift_size must be in [0, window_size), got {self.shift_size} of {self.window_size}")

    @property
    def starts_as_released(self) -> bool:
        """Whether projections start as the convolutions that they are in the released code of arXiv:2112.12786."""
        has_convolutions = any("initialization" in OWN_FIELDS.get(level, ()) for level in self.levels())
        return has_convolutions and self.initialization == "released"

    @property
    def outside_rule(self) -> str:
        """The border in force: the field, or the neighborhood's default."""
        return self.border or BORDERS[self.neighborhood][0]

    @property
    def aggregation_kind(self) -> str:
        """Which formula weights and values meet by, as kernels know it."""
        if self.aggregation == "channel_filter":
            return {"mul": "filtered", "add": "added"}[self.combine]
        if self.aggregation == "ghost_head" and self.ghost_lambda:
            return "filtered"
        return "added" if self.aggregation == "ghost_head" and self.ghost_gamma else "weighted_sum"

    def to_canonical(self) -> dict[str, Any]:
        """What distinguishes this operator from the default one: fields at their default or without effect left out."""
        ignored = self.explain_unread()
        default, canonical = asdict(AttentionConfig()), asdict(self)
        canonical["border"] = None if self.outside_rule == BORDERS[self.neighborhood][0] else self.border
        for name in ("window_size", "shift_size", "kernel_size", "dilation", "chunk_size", "hadamard_size"):
            if canonical[name] is not None:
                canonical[name] = list(to_pair(canonical[name]))
                default[name] = None if default[name] is None else list(to_pair(default[name]))
        return {
            name: sorted(value) if name == "parameterization" else value
            for name, value in canonical.items()
            if name not in ignored and value != default[name]
        }

    def explain_unread(self) -> dict[str, str]:
        """The fields that have no effect here, each with the reason."""
        levels, unread = self.levels(), {}
        for field in FIELDS_WITHOUT_EFFECT[self.neighborhood]:
            readers = [name for name, facts in NEIGHBORHOOD_FACTS.items() if field in (facts.size, *facts.fields)]
            unread[field] = f"{' and '.join(readers)} alone reads it, the neighborhood is {self.neighborhood}"
        for level, own in OWN_FIELDS.items():
            if level not in levels:
                unread |= dict.fromkeys(own, f"{level} alone reads it")
        for field, (gain, value) in _ghost_gains(self).items():
            if value == 0:
                unread.setdefault(field, f"{gain} is 0")
        return unread

    def levels(self) -> frozenset[str]:
        """Every level that this operator names or runs; code of other levels cannot change its numbers."""
        neighborhoods = self.neighborhood, *NEIGHBORHOOD_FACTS[self.neighborhood].runs
        return frozenset({*self.parameterization, self.normalization, *neighborhoods, self.aggregation})


def _ghost_gains(config: AttentionConfig) -> dict[str, tuple[str, float]]:
    """What a matrix of the ghost head does not exist without, by the field that says something of it alone."""
    return {
        "ghost_start": ("ghost_lambda", config.ghost_lambda),
        "ghost_rate": ("ghost_gamma", config.ghost_gamma),
    }


NAMES = {
    "parameterization": PARAMETERIZATIONS,
    "normalization": NORMALIZATIONS,
    "neighborhood": NEIGHBORHOODS,
    "aggregation": AGGREGATIONS,
    "backbone": BACKBONES,
}
"""The names of each room's levels; `paradigms.plugins` adds to them, and nothing else does."""


def add_neighborhood(name: str, facts: NeighborhoodFacts) -> None:
    """Make a neighborhood of one's own known to every check of a config.

    Raises:
        ValueError: it reads a field that no config has.
    """
    read = frozenset({facts.size, *facts.fields})
    for field in read:
        _require("field", field, tuple(AttentionConfig.__dataclass_fields__))
    NEIGHBORHOODS.append(name)
    NEIGHBORHOOD_FACTS[name], BORDERS[name] = facts, facts.borders
    FIELDS_WITHOUT_EFFECT[name] = frozenset().union(*_READ.values()) - read


LEVELS = frozenset().union(*NAMES.values())
"""Those of this package, from whatever room: modules that are called like them hold their code alone."""


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
