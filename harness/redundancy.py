"""Finds parts of an experiment without effect: unused fields, and rows that are the same cell."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from harness.spec import OperatorSpec, RowSpec
from paradigms.config import AttentionConfig

Stage = tuple[Sequence[OperatorSpec], AttentionConfig | None]
"""What a stage inherits, the more specific later, and the operator that this resolves to."""


def find_idle_fields(own: Iterable[OperatorSpec], stages: Sequence[Stage]) -> Iterator[tuple[OperatorSpec, str, str]]:
    """The fields that a row states and that have no effect in any of its stages, each with the reason.

    Args:
        own: the parts of a row that state fields: the row, what holds under the recipe, entries of `stages`.
        stages: of the row's cell, those whose attention can be replaced.
    """
    for layer in own:
        applied = [(layers, config) for layers, config in stages if any(part is layer for part in layers)]
        for field in layer.stated() if applied else ():
            reasons = [_explain(field, layer, layers, config) for layers, config in applied]
            if all(reasons):
                yield layer, field, f"has no effect: {reasons[0]}"


def _explain(field: str, layer: OperatorSpec, layers: Sequence[OperatorSpec], config: AttentionConfig | None) -> str:
    """Why a field of a layer has no effect in one stage; empty where it has.

    What a more specific part changes again is not judged: it may hold under one recipe alone.
    """
    place = next(number for number, part in enumerate(layers) if part is layer)
    is_replaced = any(later.preset is not None or later.stated() for later in layers[place + 1 :])
    return "" if config is None or is_replaced else config.explain_unread().get(field, "")


def find_repeated(rows: Iterable[tuple[str, str]], *, baseline: str) -> Iterator[tuple[str, str]]:
    """The rows, as names and cell ids, whose cell another row has: the name of the one, and of the one that is kept.

    The first row is kept, or the baseline.
    """
    for _, group in groupby(sorted(rows, key=lambda row: row[1]), key=lambda row: row[1]):
        names = [name for name, _ in group]
        kept = baseline if baseline in names else names[0]
        yield from ((name, kept) for name in names if name != kept)


def differ_by_recipe(first: RowSpec, second: RowSpec) -> bool:
    """Whether two rows state something else for some recipe, so that they may be one cell under another by chance."""
    return (first.sizes, first.under, first.match) != (second.sizes, second.under, second.match)


def explain_repetition(kept: str, recipe: str) -> str:
    """The reason that an error and a skipped row give."""
    return f"is the same cell as row {kept!r} under recipe {recipe!r}: their differences have no effect"


def list_parts(row: RowSpec, recipes: Iterable[str]) -> Mapping[tuple[str | int, ...], OperatorSpec]:
    """The parts of a row that state fields of the operator under these recipes, by their key path in the row."""
    parts: dict[tuple[str | int, ...], OperatorSpec] = {(): row}
    parts |= {("under", name): row.under[name] for name in recipes if name in row.under}
    return parts | {("stages", stage): fields for stage, fields in row.stages.items()}
