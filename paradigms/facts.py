"""Facts that every level declares: its own fields and what it can be combined with. Imports no torch.

A field of a level is a key of `AttentionConfig` and, by the same name, of an experiment's YAML; it is part of a cell's
id where the level is used and the value is not the default.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as default_of
from difflib import get_close_matches
from math import inf
from typing import Any, Literal

Size = int | tuple[int, int]

MAX_SHOWN = 200
"""Maximal number of characters of a wrong value in an error message."""


def shorten(text: str) -> str:
    """Shorten a very long value for an error message."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text):,} characters)"


def unknown_name(kind: str, name: object, known: Sequence[str]) -> str:
    """The message for an unknown name, with the nearest known name and all others."""
    nearest = get_close_matches(str(name)[:MAX_SHOWN], known, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown {kind} {shorten(repr(name))}{hint} (known: {', '.join(known)})"


def require_name(kind: str, name: object, known: Sequence[str]) -> None:
    """Raise ValueError unless a name is known."""
    if name not in known:
        raise ValueError(unknown_name(kind, name, known))


def to_pair(size: Size) -> tuple[int, int]:
    """Rows and columns of a size: an int means both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field that a level reads.

    Attributes:
        kind: `size` (pixels of the feature map: an int, or rows and columns), `int`, `float`, `bool` or `name`.
        default: its value where none is stated; only a field whose default is None may be None.
        doc: one sentence: what it is, and its unit.
        minimum: the least value.
        above: values are larger than this.
        maximum: the largest value.
        names: the allowed names of a `name`; an `int` may be one of them instead of a number.
        is_odd: whether a `size` must be odd along both axes.
        needs: a field of the same level. If that field is 0, this one has no effect.
    """

    kind: Literal["size", "int", "float", "bool", "name"]
    default: Any
    doc: str
    minimum: int | float | None = None
    above: int | float | None = None
    maximum: int | float | None = None
    names: tuple[str, ...] = ()
    is_odd: bool = False
    needs: str | None = None

    def read(self, name: str, value: Any) -> Any:
        """Check a value of the field `name` and convert it: numbers to float if the field is one, lists to tuples.

        Raises:
            ValueError: the field cannot have this value; the message says which values are allowed.
        """
        if value is None and self.default is None:
            return None
        if self.kind == "name":
            require_name(name, value, self.names)
        elif self.kind == "size":
            return self._read_size(name, value)
        elif self.kind == "bool":
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be true or false, got {value!r}")
        elif value not in self.names:
            return self._read_number(name, value)
        return value

    def _read_size(self, name: str, value: Any) -> Size:
        pair = [value] if isinstance(value, int) else list(value) if isinstance(value, list | tuple) else []
        if len(pair) not in (1, 2) or any(isinstance(side, bool) or not isinstance(side, int) for side in pair):
            raise ValueError(f"{name} must be a whole number, or rows and columns, got {value!r}")
        if self.minimum is not None and min(pair) < self.minimum:
            raise ValueError(f"{name} must be at least {self.minimum}, got {value}")
        if self.is_odd and any(side % 2 == 0 for side in pair):
            raise ValueError(f"{name} must be odd, got {value}")
        return value if isinstance(value, int) else (pair[0], pair[-1])

    def _read_number(self, name: str, value: Any) -> int | float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.kind == "int":
            is_number = is_number and isinstance(value, int)
        if not is_number or not self._is_within(value):
            raise ValueError(f"{name} must be {self.expected}, got {value!r}")
        return float(value) if self.kind == "float" else value

    def _is_within(self, value: int | float) -> bool:
        low = -inf if self.minimum is None else self.minimum
        return low <= value < inf and value <= (self.maximum or inf) and (self.above is None or value > self.above)

    @property
    def expected(self) -> str:
        """The allowed numbers in words."""
        noun = "a whole number" if self.kind == "int" else "a finite number"
        bounds = [
            f"{word} {bound}"
            for word, bound in (("of at least", self.minimum), ("above", self.above), ("up to", self.maximum))
            if bound is not None
        ]
        return " or ".join([*self.names, " ".join([noun, *bounds])])


Check = Callable[[Any], None]
"""A check of an `AttentionConfig`; it raises ValueError."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a level declares, available without torch.

    Attributes:
        fields: its own fields, by name.
        minimum_taps: the number of taps that a query must count.
        centred_borders: the borders that the level supports, if it needs the taps around each query of a sliding
            window. None: it supports every neighborhood.
        scores: for parameterizations: the kind of `paradigms.functional.Scores` that it returns.
        get_kind: for aggregations: the kind of `paradigms.functional.Aggregation` that it returns.
        check: raises ValueError if values of several fields cannot be combined.
    """

    fields: Mapping[str, Field] = default_of(default_factory=dict)
    minimum_taps: int = 1
    centred_borders: frozenset[str] | None = None
    scores: str = "terms"
    get_kind: Callable[[Any], str] = lambda _config: "weighted_sum"
    check: Check = lambda _config: None


@dataclass(frozen=True, kw_only=True)
class NeighborhoodFacts:
    """What a neighborhood declares, available without torch.

    Attributes:
        symbol: its symbol in arXiv:2112.12786.
        borders: the borders that it supports, its default first.
        size: the name of the field with its size.
        span: the number of such sizes that a query sees along each axis.
        fields: the fields that it reads, including `size`, by name. A plug-in may leave out fields that another
            neighborhood declares.
        runs: other neighborhoods whose kernels may compute it.
        check: as in `Facts`.
    """

    symbol: str
    borders: tuple[str, ...]
    size: str
    span: int = 1
    fields: Mapping[str, Field] = default_of(default_factory=dict)
    runs: tuple[str, ...] = ()
    check: Check = lambda _config: None


def _check_shift(config: Any) -> None:
    if config.shift_size is not None:
        shift, window = to_pair(config.shift_size), to_pair(config.window_size)
        if any(not 0 <= s < w for s, w in zip(shift, window, strict=True)):
            raise ValueError(f"shift_size must be in [0, window_size), got {config.shift_size} of {config.window_size}")


NEIGHBORHOODS: dict[str, NeighborhoodFacts] = {
    "local_window": NeighborhoodFacts(
        symbol="Ω",
        borders=("project", "mask", "zero"),
        size="window_size",
        fields={
            "window_size": Field(kind="size", default=7, minimum=1, doc="Pixels of a window."),
            "shift_size": Field(
                kind="size",
                default=None,
                minimum=0,
                doc="By how much windows move; without it the backbone alternates (Swin: half a window in every second "
                "block).",
            ),
        },
        check=_check_shift,
    ),
    "sliding_window": NeighborhoodFacts(
        symbol="Θ",
        borders=("zero", "mask", "project", "shift"),
        size="kernel_size",
        fields={
            "kernel_size": Field(kind="size", default=7, minimum=1, is_odd=True, doc="Taps along each axis, odd."),
            "dilation": Field(kind="size", default=1, minimum=1, doc="Pixels from one tap to the next."),
        },
    ),
    "sliding_chunk": NeighborhoodFacts(
        symbol="Θ",
        borders=("mask", "zero", "project"),
        size="chunk_size",
        span=3,
        fields={
            "chunk_size": Field(
                kind="size", default=3, minimum=1, doc="Pixels of a chunk; a query sees three along each axis."
            ),
            "exact": Field(
                kind="bool", default=False, doc="Whether a query sees only pixels within one chunk_size of itself."
            ),
        },
        runs=("sliding_window",),
    ),
}

NORMALIZATIONS: dict[str, Facts] = {
    "softmax": Facts(),
    "filter_norm": Facts(minimum_taps=2),
    "identity": Facts(),
}

_CENTRED = frozenset({"zero", "mask", "project"})


def _check_hadamard_size(config: Any) -> None:
    kernel = to_pair(config.kernel_size)
    conv = kernel if config.hadamard_size is None else to_pair(config.hadamard_size)
    if any(size > most for size, most in zip(conv, kernel, strict=True)):
        raise ValueError(f"hadamard_size must be odd and at most kernel_size, got {conv} of {kernel}")


def _check_outlook(config: Any) -> None:
    if to_pair(config.dilation) != (1, 1) or any(size % 4 != 1 for size in to_pair(config.kernel_size)):
        message = "outlook needs kernel_size 1, 5, 9, ... and dilation 1"
        raise ValueError(f"{message}, got kernel_size {config.kernel_size}, dilation {config.dilation}")


INITIALIZATIONS = ("backbone", "released")

PARAMETERIZATIONS: dict[str, Facts] = {
    "query_key": Facts(),
    "query_position": Facts(),
    "position_key": Facts(),
    "position_bias": Facts(),
    "hadamard": Facts(scores="shared_terms"),
    "hadamard_conv": Facts(
        fields={
            "group_width": Field(
                kind="int", default=4, minimum=1, maximum=65_536, doc="Channels of a group of its convolution."
            ),
            "hadamard_size": Field(
                kind="size",
                default=None,
                minimum=1,
                is_odd=True,
                doc="Of its convolution; without it as large as the neighborhood.",
            ),
            "initialization": Field(
                kind="name",
                default="backbone",
                names=INITIALIZATIONS,
                doc="How its projections to queries, keys, values and logits start: by the rule of the `backbone` for "
                "linear layers, or as `released`, where they are convolutions (torch's own rule).",
            ),
        },
        centred_borders=frozenset({"zero", "mask"}),
        scores="logits",
        check=_check_hadamard_size,
    ),
    "involution": Facts(centred_borders=_CENTRED, scores="logits"),
    "ddf": Facts(centred_borders=_CENTRED, scores="logits"),
    "dynamic_conv": Facts(centred_borders=_CENTRED, scores="logits"),
    "outlook": Facts(centred_borders=_CENTRED, scores="logits", check=_check_outlook),
}

GHOST_MAPS = ("grouped", "interleaved")
GHOST_STARTS = ("normal", "ones")
COMBINATIONS = ("mul", "add")


def _get_kind_of_ghosts(config: Any) -> str:
    if config.ghost_lambda:
        return "filtered"
    return "added" if config.ghost_gamma else "weighted_sum"


AGGREGATIONS: dict[str, Facts] = {
    "weighted_sum": Facts(),
    "ghost_head": Facts(
        fields={
            "ghost_lambda": Field(kind="float", default=0.0, minimum=0, doc="λ of Eq. 8."),
            "ghost_gamma": Field(kind="float", default=1.0, minimum=0, doc="γ of Eq. 8."),
            "ghost_heads": Field(
                kind="int",
                default="C",
                names=("C", "2x"),
                minimum=1,
                maximum=65_536,
                doc="How many heads it makes: a number, `2x` of the heads, `C` for one per channel.",
            ),
            "ghost_map": Field(
                kind="name",
                default="grouped",
                names=GHOST_MAPS,
                doc="Which head a ghost has: `grouped` as released, `interleaved` as printed.",
            ),
            "ghost_start": Field(
                kind="name",
                default="normal",
                names=GHOST_STARTS,
                needs="ghost_lambda",
                doc="How the matrix O starts: standard `normal` as in Algorithm 1, or as `ones`, so that λ changes "
                "nothing at the start.",
            ),
            "ghost_rate": Field(
                kind="float",
                default=1.0,
                above=0,
                needs="ghost_gamma",
                doc="Factor of the learning rate of the matrix S.",
            ),
        },
        get_kind=_get_kind_of_ghosts,
    ),
    "channel_filter": Facts(
        fields={
            "se_ratio": Field(
                kind="float", default=0.2, above=0, maximum=1_000, doc="Its hidden channels for each channel."
            ),
            "combine": Field(
                kind="name", default="mul", names=COMBINATIONS, doc="How filters meet weights: `mul` or `add`."
            ),
        },
        minimum_taps=2,
        centred_borders=_CENTRED,
        get_kind=lambda config: {"mul": "filtered", "add": "added"}[config.combine],
    ),
}

RESERVED = frozenset(
    {"parameterization", "normalization", "neighborhood", "aggregation", "border", "projections", "backend", "values"}
)
"""Names with another meaning in a config."""

ROOMS: Mapping[str, dict[str, Any]] = {
    "parameterization": PARAMETERIZATIONS,
    "normalization": NORMALIZATIONS,
    "neighborhood": NEIGHBORHOODS,
    "aggregation": AGGREGATIONS,
}
"""The levels of each room with their facts; `paradigms.plugins` adds to them, and nothing else does."""


BORDERS = tuple(dict.fromkeys(border for level in NEIGHBORHOODS.values() for border in level.borders))
"""All rules for taps outside the map; a neighborhood supports some of them."""

FIELDS: dict[str, Field] = {
    name: field for room in ROOMS.values() for level in room.values() for name, field in level.fields.items()
}
"""The fields of all levels, by name."""


def add_facts(room: str, name: str, facts: Facts | NeighborhoodFacts) -> None:
    """Register the facts of a level from a plug-in.

    Raises:
        ValueError: a field has an impossible name or default, or another level declares it differently.
    """
    for key, field in facts.fields.items():
        if not isinstance(field, Field):
            raise ValueError(f"{room} {name!r}: fields must map names to paradigms.facts.Field, got {field!r}")
        if not key.isidentifier() or key.startswith("_") or key in RESERVED:
            raise ValueError(f"{room} {name!r}: a field cannot be called {key!r}")
        if FIELDS.get(key, field) != field:
            raise ValueError(f"{room} {name!r}: field {key!r} is declared differently by another level")
        field.read(key, field.default)
    if isinstance(facts, NeighborhoodFacts):
        require_name("field", facts.size, (*FIELDS, *facts.fields))
    FIELDS.update(facts.fields)
    ROOMS[room][name] = facts
