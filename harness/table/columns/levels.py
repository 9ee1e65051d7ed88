"""Columns of levels, and of the terms of Eq. 4."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.cell import ALL, FACTORS, Cell
from harness.table.column import Column, Kind, Latex, Note, Place
from harness.table.entry import Entry
from harness.table.format import join
from harness.text import escape_latex
from paradigms.config import TERMS

if TYPE_CHECKING:
    from harness.table.results import Results

TICK, TICK_FORMULA = "✓", r"$\surd$"

TERM_TITLES = dict(zip(TERMS, ("q·k", "q·r", "r·k", "b"), strict=True))

TERM_FORMULAS = dict(zip(TERMS, ("$qk$", "$qr^k$", "$r^qk$", "$r^b$"), strict=True))


def make_factor_columns(get: Callable[[Any], Cell | None]) -> tuple[Column[Any], ...]:
    """A column for the level of each factor in the cell of an item."""

    def level(factor: str) -> Callable[[Any], str | None]:
        return lambda item: None if (cell := get(item)) is None else cell.factors()[factor]

    heads = Column[Any](
        "heads", lambda item: None if (cell := get(item)) is None else cell.num_heads, Kind.LIST, join(", ")
    )
    return *(Column[Any](name, level(name)) for name in FACTORS if name != "heads"), heads


def make_levels() -> tuple[Column[Entry], ...]:
    """The columns of levels, and of the terms of Eq. 4: one narrow column per term, one for other parameterizations."""

    def show(column: Column[Entry]) -> Column[Entry]:
        name = column.name
        return replace(column, title=name, key=name, on_terminal=False, latex=Latex())

    def make_term(name: str, term: str) -> Column[Entry]:
        return Column(
            name,
            lambda entry: None if entry.row is None else entry.row.cell.terms()[term],
            title=TERM_TITLES.get(term, term),
            key="parameterization",
            place=Place.TERMS,
            on_terminal=False,
        )

    def make_tick(term: str) -> Column[Entry]:
        return replace(
            make_term(term, term),
            text=lambda row: TICK if row[term] == ALL else row[term],
            latex=Latex(
                "c", TERM_FORMULAS[term], lambda row: [TICK_FORMULA if row[term] == ALL else escape_latex(row[term])]
            ),
            note=Note(9, _explain_terms) if term == TERMS[0] else None,
        )

    other = replace(
        make_term("other_parameterization", "other"),
        text=lambda row: row["other_parameterization"],
        when=lambda frame: bool(frame["other_parameterization"].any()),
        latex=Latex(width=0.1),
    )
    levels = make_factor_columns(lambda entry: None if entry.row is None else entry.row.cell)
    shown = ("normalization", "neighborhood")
    return (*(show(level) if level.name in shown else level for level in levels), *map(make_tick, TERMS), other)


def _explain_terms(_: Results) -> Iterator[str]:
    """The note on the terms of Eq. 4."""
    titles = ", ".join(f"{title} {term}" for term, title in TERM_TITLES.items())
    yield f"Terms of Eq. 4: {titles}; {TICK} in every stage, a number in that stage alone."
