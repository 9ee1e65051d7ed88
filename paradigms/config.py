"""The frozen config of one operator. Imports no torch and no timm.

The operator is Eq. 4 of arXiv:2112.12786: logits from a set of terms, a normalization, a neighborhood, an aggregation.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, fields
from operator import contains
from typing import Any, NamedTuple

from paradigms import facts
from paradigms.facts import FIELDS, Facts, NeighborhoodFacts, require_name, to_pair

TERMS = ("query_key", "query_position", "position_key", "position_bias")
"""Terms can be added up; every other parameterization is used alone."""

PROJECTIONS = ("linear", "none", "batch_norm")
BACKENDS = ("auto", "reference", "dense", "torch", "cpu", "triton")
BACKBONES = ["swin", "volo", "deit"]

_CENTRED = frozenset({"zero", "mask", "project"})
_SOFTMAX = frozenset({"softmax"})


class KernelSupport(NamedTuple):
    """Combinations that a backend supports, in the names of `paradigms.kernels`.

    Attributes:
        neighborhood: name of the neighborhood.
        borders: names of borders.
        normalizations: names of normalizations.
        aggregations: kinds of `paradigms.functional.Aggregation`.
        scores: kinds of `paradigms.functional.Scores`.
    """

    neighborhood: str
    borders: frozenset[str]
    normalizations: Container[str] = facts.NORMALIZATIONS
    aggregations: frozenset[str] = frozenset({"weighted_sum", "added"})
    scores: frozenset[str] = frozenset({"terms"})

    def includes(self, neighborhood: str, levels: tuple[str, str, str, str]) -> bool:
        """Whether a neighborhood is supported with this border, normalization, kind of aggregation and of scores."""
        return neighborhood == self.neighborhood and all(map(contains, self[1:], levels))


_FILTER = frozenset({"filtered"})
_FILTERED = frozenset({"weighted_sum", "added", "filtered"})
_COMPOSED = KernelSupport(
    "sliding_window",
    _CENTRED,
    aggregations=_FILTERED,
    scores=frozenset({"terms", "shared_terms", "logits"}),
)
_TERMS = frozenset({"terms", "shared_terms"})
_CLAMPED = KernelSupport("sliding_window", frozenset({"shift"}), _SOFTMAX)

KERNEL_SUPPORT = {
    "dense": (KernelSupport("sliding_window", frozenset({"zero", "mask"})),),
    "torch": (
        KernelSupport("local_window", _CENTRED, aggregations=_FILTERED),
        _COMPOSED,
        _CLAMPED,
        KernelSupport("sliding_chunk", _CENTRED, aggregations=_FILTERED),
    ),
    "cpu": (
        KernelSupport("local_window", _CENTRED, _SOFTMAX),
        _COMPOSED,
        KernelSupport("sliding_window", frozenset({"shift"}), aggregations=_FILTERED, scores=_TERMS),
        KernelSupport("sliding_chunk", frozenset({"zero", "mask"}), aggregations=_FILTERED, scores=_TERMS),
        KernelSupport("local_window", _CENTRED, aggregations=_FILTER, scores=_TERMS),
    ),
    "triton": (_COMPOSED, _CLAMPED),
}
"""The combinations that a backend supports when it is selected by name. Other backends support everything."""

BORDERS_WITHOUT_BIAS = {"batch_norm": frozenset({"zero", "mask", "shift"})}
"""Projections whose output for a zero input depends on the batch, and the borders that do not need that output."""


@dataclass(frozen=True, init=False, repr=False)
class AttentionConfig:
    """One point of the space of Eq. 4 (arXiv:2112.12786); Swin's local self-attention by default.

    Further keyword arguments are fields of levels (`kernel_size`, `ghost_lambda`, ...), which `paradigms.facts`
    declares. They are attributes of the config: `config.kernel_size`. Sizes are in pixels of the feature map: an int,
    or a pair of rows and columns.

    Attributes:
        parameterization: the terms whose sum is the logits, in any order (stored in the order of `TERMS`), or the name
            of another parameterization.
        normalization: how logits become weights.
        neighborhood: which keys a query sees (the paper's Φ).
        aggregation: how weights and values are combined.
        border: the rule for taps outside the map; None means the neighborhood's default.
        projections: `linear` projects values and output. `none` uses the input as values and their sum as output.
            `batch_norm` projects input and output with batch norm and ReLU, as around the depthwise convolutions of
            arXiv:2106.04263.
        backend: the kernels that compute the operator; `auto` chooses them.
        values: the fields of levels that differ from their defaults, by name.

    Raises:
        ValueError: an unknown name or an impossible value. The message lists what is possible.
    """

    parameterization: tuple[str, ...]
    normalization: str
    neighborhood: str
    aggregation: str
    border: str | None
    projections: str
    backend: str
    values: tuple[tuple[str, Any], ...]

    def __init__(
        self,
        *,
        parameterization: tuple[str, ...] = ("query_key", "position_bias"),
        normalization: str = "softmax",
        neighborhood: str = "local_window",
        aggregation: str = "weighted_sum",
        border: str | None = None,
        projections: str = "linear",
        backend: str = "auto",
        **fields: Any,
    ) -> None:
        fields = {**dict(fields.pop("values", ())), **fields}  # `dataclasses.replace` passes both
        for name in fields:
            require_name("field", name, (*CORE, *FIELDS))
        read = {name: FIELDS[name].read(name, value) for name, value in fields.items()}
        stored = tuple(sorted((name, value) for name, value in read.items() if value != FIELDS[name].default))
        for name, value in {
            "parameterization": _sort_terms(parameterization),
            "normalization": normalization,
            "neighborhood": neighborhood,
            "aggregation": aggregation,
            "border": border,
            "projections": projections,
            "backend": backend,
            "values": stored,
        }.items():
            object.__setattr__(self, name, value)
        self._check()

    def __getattr__(self, name: str) -> Any:
        """The value of a level's field."""
        declared = FIELDS.get(name)
        if declared is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return dict(self.values).get(name, declared.default)

    def __repr__(self) -> str:
        """The class with the fields that differ from their defaults."""
        stated = {name: getattr(self, name) for name in CORE if getattr(self, name) != _DEFAULTS[name]}
        values = ", ".join(f"{name}={value!r}" for name, value in (*stated.items(), *self.values))
        return f"AttentionConfig({values})"

    def _check(self) -> None:
        require_name("normalization", self.normalization, tuple(facts.NORMALIZATIONS))
        require_name("neighborhood", self.neighborhood, tuple(facts.NEIGHBORHOODS))
        require_name("aggregation", self.aggregation, tuple(facts.AGGREGATIONS))
        require_name("backend", self.backend, BACKENDS)
        require_name("projections", self.projections, PROJECTIONS)
        if self.border is not None:
            require_name(f"border of {self.neighborhood}", self.border, self.neighborhood_facts.borders)
        self._check_borders()
        self.neighborhood_facts.check(self)
        for level in self._list_facts():
            level.check(self)
        self._check_taps()
        self._check_backend()

    def _check_borders(self) -> None:
        got = f"got {self.neighborhood}, {self.outside_rule}"
        for name, level in (
            (self.parameterization[0], self.parameterization_facts),
            (self.aggregation, self.aggregation_facts),
        ):
            known = level.centred_borders
            if known and (self.neighborhood != "sliding_window" or self.outside_rule not in known):
                raise ValueError(f"{name} needs sliding_window with border {' or '.join(sorted(known))}, {got}")
        allowed = BORDERS_WITHOUT_BIAS.get(self.projections)
        if allowed and self.outside_rule not in allowed:
            raise ValueError(f"projections {self.projections!r} need a border of {', '.join(sorted(allowed))}; {got}")

    def _check_taps(self) -> None:
        rows, columns = to_pair(getattr(self, self.neighborhood_facts.size))
        size = self.neighborhood_facts.span * rows, self.neighborhood_facts.span * columns
        for name, level in ((self.normalization, self.normalization_facts), (self.aggregation, self.aggregation_facts)):
            if size[0] * size[1] < level.minimum_taps:
                raise ValueError(f"{name} needs at least {level.minimum_taps} taps, got a neighborhood of {size}")

    def _check_backend(self) -> None:
        asked = (self.outside_rule, self.normalization, self.aggregation_kind, self.parameterization_facts.scores)
        supported = KERNEL_SUPPORT.get(self.backend)
        if supported is not None and not any(each.includes(self.neighborhood, asked) for each in supported):
            room = ", ".join((self.neighborhood, self.outside_rule, self.normalization))
            levels = f"{' + '.join(self.parameterization)} and {self.aggregation}"
            raise ValueError(f"backend {self.backend!r} has no kernel for {room} with {levels}; use 'auto'")

    @property
    def neighborhood_facts(self) -> NeighborhoodFacts:
        """The facts of the neighborhood."""
        return facts.NEIGHBORHOODS[self.neighborhood]

    @property
    def parameterization_facts(self) -> Facts:
        """The facts of the parameterization; all sums of terms share theirs."""
        return facts.PARAMETERIZATIONS[self.parameterization[0]]

    @property
    def normalization_facts(self) -> Facts:
        """The facts of the normalization."""
        return facts.NORMALIZATIONS[self.normalization]

    @property
    def aggregation_facts(self) -> Facts:
        """The facts of the aggregation."""
        return facts.AGGREGATIONS[self.aggregation]

    def _list_facts(self) -> tuple[Facts, ...]:
        """The facts of all levels except the neighborhood."""
        terms = tuple(facts.PARAMETERIZATIONS[name] for name in self.parameterization)
        return (*terms, self.normalization_facts, self.aggregation_facts)

    @property
    def outside_rule(self) -> str:
        """The border in force: the field, or the neighborhood's default."""
        return self.border or self.neighborhood_facts.borders[0]

    @property
    def aggregation_kind(self) -> str:
        """The kind of aggregation, by which kernels are selected."""
        return self.aggregation_facts.get_kind(self)

    @property
    def starts_as_released(self) -> bool:
        """Whether projections are initialized as convolutions, as in the released code of arXiv:2112.12786."""
        return "initialization" in self.read_fields() and self.initialization == "released"

    def replace(self, **changes: Any) -> "AttentionConfig":
        """Another config with some values changed, by their names.

        Raises:
            ValueError: as for the class.
        """
        return make_config(changes, base=self)

    def to_dict(self) -> dict[str, Any]:
        """All values by name, defaults written out."""
        return {name: getattr(self, name) for name in (*CORE, *FIELDS)}

    def to_canonical(self) -> dict[str, Any]:
        """The fields that differ from their defaults and have an effect; the cell id is computed from them."""
        ignored = self.explain_unread()
        canonical = {name: getattr(self, name) for name in CORE if getattr(self, name) != _DEFAULTS[name]}
        if self.outside_rule == self.neighborhood_facts.borders[0]:
            canonical.pop("border", None)
        if "parameterization" in canonical:
            canonical["parameterization"] = list(self.parameterization)
        for name, value in self.values:
            if name not in ignored and _to_list(value) != _to_list(FIELDS[name].default):
                canonical[name] = _to_list(value) if FIELDS[name].kind == "size" else value
        return canonical

    def read_fields(self) -> frozenset[str]:
        """The fields of the levels that this operator names."""
        return frozenset({self.neighborhood_facts.size, *self.neighborhood_facts.fields}).union(
            *(level.fields for level in self._list_facts())
        )

    def explain_unread(self) -> dict[str, str]:
        """The fields that have no effect here, each with the reason."""
        read, unread = self.read_fields(), {}
        for name, declared in FIELDS.items():
            if name not in read:
                readers, are_neighborhoods = _find_readers(name)
                alone = f"{' and '.join(readers)} alone reads it"
                unread[name] = f"{alone}, the neighborhood is {self.neighborhood}" if are_neighborhoods else alone
            elif declared.needs is not None and getattr(self, declared.needs) == 0:
                unread[name] = f"{declared.needs} is 0"
        return unread

    def levels(self) -> frozenset[str]:
        """Every level whose code this operator runs; code of other levels cannot change its numbers."""
        neighborhoods = self.neighborhood, *self.neighborhood_facts.runs
        return frozenset({*self.parameterization, self.normalization, *neighborhoods, self.aggregation})


CORE = tuple(field.name for field in fields(AttentionConfig) if field.name != "values")
"""Names of the fields that every config has."""


def _sort_terms(parameterization: tuple[str, ...]) -> tuple[str, ...]:
    known = tuple(facts.PARAMETERIZATIONS)
    for name in parameterization:
        require_name("term", name, known)
    if not parameterization:
        raise ValueError(f"parameterization needs at least one term of {', '.join(TERMS)}")
    if len(set(parameterization)) != len(parameterization):
        raise ValueError(f"a term occurs twice in parameterization, got {list(parameterization)}")
    if len(parameterization) > 1 and not set(parameterization) <= set(TERMS):
        raise ValueError(f"only terms of Eq. 4 can be added up, got {list(parameterization)}")
    return tuple(name for name in known if name in parameterization)


def _to_list(value: Any) -> Any:
    """A size, given as one number or a pair, as [rows, columns]; any other value unchanged."""
    is_size = isinstance(value, int | tuple) and not isinstance(value, bool)
    return list(to_pair(value)) if is_size else value


def _find_readers(field: str) -> tuple[list[str], bool]:
    """The levels that read a field, and whether they are neighborhoods."""
    neighborhoods = [name for name, level in facts.NEIGHBORHOODS.items() if field in (level.size, *level.fields)]
    others = [name for room in facts.ROOMS.values() for name, level in room.items() if field in level.fields]
    return neighborhoods or others, bool(neighborhoods)


LEVELS = frozenset(BACKBONES).union(*facts.ROOMS.values())
"""The levels of this package, of all rooms. A module with the name of a level contains the code of this level only."""


def make_config(values: Mapping[str, Any], *, base: AttentionConfig | None = None) -> AttentionConfig:
    """Replace values of `base` (None: Swin's attention) by plain values, such as lists from YAML.

    Raises:
        ValueError: a field is unknown or its value impossible.
    """
    known = (*CORE, *FIELDS)
    for name in values:
        require_name("field", name, known)
    start = {} if base is None else {**{name: getattr(base, name) for name in CORE}, **dict(base.values)}
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return AttentionConfig(**{**start, **plain})


_DEFAULTS = {name: getattr(AttentionConfig(), name) for name in CORE}
