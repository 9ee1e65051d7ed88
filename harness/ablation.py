"""Rows that leave one part out of a row, or add one part of it to the baseline."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.spec import CellSpec, OperatorSpec, RowSpec, Stages
from paradigms.config import TERMS, AttentionConfig
from paradigms.facts import ROOMS
from paradigms.presets import get_preset

FACTORS = ("parameterization", "normalization", "neighborhood", "aggregation", "border", "projections", "heads")
"""The fields of an operator that are parts of a row."""

Place = Stages | None
"""A key of `stages`; None: the row itself."""


@dataclass(frozen=True)
class Part:
    """One thing by which the operator of a row differs from the baseline's.

    Attributes:
        factor: one of `FACTORS`.
        term: of the parameterization; None: the factor as a whole.
        name: in the names of rows.
    """

    factor: str
    term: str | None
    name: str


def make_ablations(cell: CellSpec, baseline: RowSpec, row: RowSpec) -> tuple[dict[str, RowSpec], dict[str, RowSpec]]:
    """By the name of each part: the row without it, and the baseline with it.

    A part is a factor of the operator, with the fields of its level, whose level differs from the baseline's in the
    row itself or in an entry of its `stages`; `under` stays as it is. Where the parameterization of both has terms of
    Eq. 4 alone, each term that one of them lacks is a part: `query key`, or `no query key`.
    """
    parts = list(_list_parts(cell, baseline, row))
    removed = {part.name: _move(part, cell, baseline, row, places=row) for part in parts}
    added = {part.name: _move(part, cell, row, baseline, places=row) for part in parts}
    return removed, added


def _list_parts(cell: CellSpec, baseline: RowSpec, row: RowSpec) -> Iterator[Part]:
    for factor in FACTORS:
        levels = [
            (own[factor], other[factor])
            for place in _list_places(row)
            for own, other in [(_resolve(cell, row, place), _resolve(cell, baseline, place))]
            if own[factor] != other[factor]
        ]
        if (
            levels
            and factor == "parameterization"
            and all(set(level) <= set(TERMS) for pair in levels for level in pair)
        ):
            for term in TERMS:
                if any(term in own and term not in other for own, other in levels):
                    yield Part(factor, term, _to_words(term))
                elif any(term in other and term not in own for own, other in levels):
                    yield Part(factor, term, f"no {_to_words(term)}")
        elif levels:
            yield Part(factor, None, _name(factor, levels[0][0]))


def _name(factor: str, level: Any) -> str:
    """`ghost head`, `border zero`, `heads 2x`."""
    shown = " + ".join(level) if factor == "parameterization" else str(level)
    return _to_words(shown if factor in ROOMS else f"{factor} {'default' if level is None else shown}")


def _to_words(level: str) -> str:
    return level.replace("_", " ")


def _list_places(row: RowSpec) -> tuple[Place, ...]:
    return (None, *row.stages)


def _get_layer(row: RowSpec, place: Place) -> OperatorSpec:
    return row if place is None else row.stages.get(place, OperatorSpec())


def _resolve(cell: CellSpec, row: RowSpec, place: Place) -> dict[str, Any]:
    """The fields of the operator at a place: cell, row and the entry of `stages`, whatever other entries state."""
    layers = [cell, row, *([] if place is None else [_get_layer(row, place)])]
    fields: dict[str, Any] = AttentionConfig().to_dict()
    for layer in layers:
        expanded = {} if layer.preset is None else get_preset(layer.preset).config.to_dict()
        fields = {**fields, **expanded, **layer.stated()}
    heads = [layer.heads for layer in layers if layer.heads is not None]
    return {**fields, "heads": heads[-1] if heads else "1x"}


def _move(part: Part, cell: CellSpec, source: RowSpec, target: RowSpec, *, places: RowSpec) -> RowSpec:
    """The target with a part as the source has it, at the places of a row."""
    changed: dict[Place, OperatorSpec] = {}
    for place in _list_places(places):
        own, other = _resolve(cell, target, place), _resolve(cell, source, place)
        level = _choose_level(part, own[part.factor], other[part.factor])
        if level != own[part.factor]:
            layer = _get_layer(target, place)
            changed[place] = layer.model_copy(update=_restate(part.factor, layer, level, own, other))
    row = changed.get(None, target)
    assert isinstance(row, RowSpec)
    stages = {**target.stages, **{place: layer for place, layer in changed.items() if place is not None}}
    return row.model_copy(update={"stages": stages, "expect": None})


def _choose_level(part: Part, own: Any, other: Any) -> Any:
    """The level that the target gets: the source's, or its own with or without the term."""
    if part.term is None:
        return other
    return tuple(term for term in TERMS if term in (other if term == part.term else own))


def _restate(
    factor: str, layer: OperatorSpec, level: Any, own: Mapping[str, Any], other: Mapping[str, Any]
) -> dict[str, Any]:
    """What a layer states instead: the level with its fields that differ, without those of the level before."""
    after, before = _list_fields(factor, level), _list_fields(factor, own[factor])
    fields = {name: other[name] for name in after - before if own[name] != other[name]}
    dropped = dict.fromkeys(name for name in before - after if getattr(layer, name) is not None)
    return {**dropped, **fields, factor: level}


def _list_fields(factor: str, level: Any) -> set[str]:
    """The fields that a level reads."""
    if factor not in ROOMS:
        return set()
    names = (level,) if isinstance(level, str) else level
    return {field for name in names for field in ROOMS[factor][name].fields}
