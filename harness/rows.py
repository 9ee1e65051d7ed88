"""All rows of an experiment: the stated ones, the combinations of its factors, then those that `ablate` generates."""

from collections.abc import Mapping
from itertools import combinations, product
from typing import Any

from harness.ablation import make_ablations
from harness.spec import ExperimentSpec, FactorsSpec, RowSpec
from paradigms.config import TERMS
from paradigms.facts import unknown_name

MAX_PRODUCT = 200
"""Rows that factors may make: more is a slip, or a search."""

SUBSETS = tuple(subset for size in range(1, len(TERMS) + 1) for subset in combinations(TERMS, size))
"""Every non-empty set of the four terms of Eq. 4 (arXiv:2112.12786), small sets first."""


def list_rows(spec: ExperimentSpec) -> dict[str, RowSpec]:
    """Every row by its name, in the order of the table: the last factor changes fastest.

    A row of `factors` is named after its levels: `query_key+position_bias, softmax, local_window`. One of `ablate` is
    named after the row or the baseline, and the part; a row of that name that is stated takes its place.

    Raises:
        ValueError: there is no row at all, a level occurs twice in a factor, there are too many combinations, a
            stated row has the name of one, or `ablate` names a row that has no parts.
    """
    combined = {} if spec.factors is None else list_combinations(spec.factors)
    made = {name: RowSpec(**levels) for name, levels in combined.items()}
    taken = sorted(made.keys() & spec.rows.keys())
    if taken:
        raise ValueError(f"a row of factors has the name of a stated row: {', '.join(map(repr, taken))}")
    if not made and not spec.rows:
        raise ValueError("an experiment needs rows or factors")
    rows = {**spec.rows, **made}
    return {**rows, **{name: row for name, row in _list_ablated(spec, rows).items() if name not in rows}}


def list_ablations(spec: ExperimentSpec) -> frozenset[str]:
    """The names of the rows that `ablate` generates."""
    if spec.ablate is None:
        return frozenset()
    return frozenset(list_rows(spec).keys() - list_rows(spec.model_copy(update={"ablate": None})).keys())


def _list_ablated(spec: ExperimentSpec, rows: Mapping[str, RowSpec]) -> dict[str, RowSpec]:
    if spec.ablate is None or spec.baseline not in rows:
        return {}
    source = _find_source(spec, rows)
    removed, added = make_ablations(spec.cell, rows[spec.baseline], rows[source])
    if not removed:
        raise ValueError(f"{source!r} has no part that {spec.baseline!r} lacks")
    return {
        **({} if spec.ablate.remove is None else {f"{source} - {part}": row for part, row in removed.items()}),
        **({} if spec.ablate.add is None else {f"{spec.baseline} + {part}": row for part, row in added.items()}),
    }


def _find_source(spec: ExperimentSpec, rows: Mapping[str, RowSpec]) -> str:
    """The row whose parts are left out or added."""
    assert spec.ablate is not None
    source = spec.ablate.row
    if source not in rows:
        raise ValueError(unknown_name("row", source, tuple(rows)))
    row, baseline = rows[source], rows[spec.baseline]
    if source == spec.baseline or row.placebo:
        raise ValueError(f"{source!r} is the baseline{' again' if row.placebo else ''}, which has no parts of its own")
    if row.init_from is not None:
        raise ValueError(f"{source!r} starts from weights, which fit no other operator")
    if (row.backbone or spec.cell.backbone) != (baseline.backbone or spec.cell.backbone):
        raise ValueError(f"{source!r} has another backbone than {spec.baseline!r}: parts are those of the operator")
    return source


def list_levels(factors: FactorsSpec) -> dict[str, tuple[Any, ...]]:
    """The levels of each stated factor, factors in the order of the operator's parts.

    Raises:
        ValueError: a level occurs twice in a factor.
    """
    levels: dict[str, tuple[Any, ...]] = {}
    for name in FactorsSpec.model_fields:
        stated = getattr(factors, name)
        if stated is None:
            continue
        levels[name] = SUBSETS if stated == "subsets" else stated
        seen = [frozenset(level) if name == "parameterization" else level for level in levels[name]]
        if len(set(seen)) != len(seen):
            raise ValueError(f"a level occurs twice in {name}")
    return levels


def list_combinations(factors: FactorsSpec) -> dict[str, dict[str, Any]]:
    """The level of each factor in every row that they make, by the row's name.

    Raises:
        ValueError: a level occurs twice in a factor, or there are more than 200 combinations.
    """
    levels = list_levels(factors)
    rows = [dict(zip(levels, choice, strict=True)) for choice in product(*levels.values())] if levels else []
    if len(rows) > MAX_PRODUCT:
        raise ValueError(f"factors make {len(rows)} rows, more than {MAX_PRODUCT}")
    return {", ".join(name_level(level) for level in row.values()): row for row in rows}


def name_level(level: str | tuple[str, ...]) -> str:
    """A level as it stands in the name of a row; terms are joined."""
    return level if isinstance(level, str) else "+".join(level)
