"""`harness list`: names of experiments, recipes, presets, operators and data."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.data import DATASETS, describe_data
from harness.document import read_document
from harness.errors import SpecError
from harness.reading import list_experiments, list_recipes, list_searches, load_recipe, load_spec
from harness.rows import list_rows
from paradigms.config import BACKBONES, PROJECTIONS
from paradigms.facts import AGGREGATIONS, BORDERS, INITIALIZATIONS, NEIGHBORHOODS, NORMALIZATIONS, PARAMETERIZATIONS
from paradigms.presets import PRESETS

Entries = list[dict[str, Any]]

_WIDTH = 82
"""Width of the text beside a name, so that a line has at most 100 columns."""

_ROOMS = {
    "parameterization": ("how logits are made; the first four are terms that add up", PARAMETERIZATIONS),
    "normalization": ("how logits become weights", NORMALIZATIONS),
    "neighborhood": ("which keys a query sees", tuple(NEIGHBORHOODS)),
    "border": ("the rule for taps outside the map", BORDERS),
    "aggregation": ("how weights and values are combined", AGGREGATIONS),
    "projections": ("the layers before and after the operator", PROJECTIONS),
    "initialization": ("initial values of the projections of hadamard_conv", INITIALIZATIONS),
    "backbone": ("the model around the operator", BACKBONES),
}


def _list_experiments(_data_dir: Path | None) -> Entries:
    return [_to_experiment(name, path) for name, path in list_experiments().items()]


def _to_experiment(name: str, path: Path) -> dict[str, Any]:
    """The entry of an experiment; if it cannot be read, its error is listed."""
    try:
        spec = load_spec(path)
    except SpecError as error:
        return {"experiment": name, "rows": None, "seeds": None, "recipe": None, "title": str(error)}
    rows = len(list_rows(spec))
    return {"experiment": name, "rows": rows, "seeds": spec.seeds, "recipe": spec.recipe.name, "title": spec.title}


def _list_searches(_data_dir: Path | None) -> Entries:
    return [
        {"search": name, "title": read_document(path).to_plain().get("title")} for name, path in list_searches().items()
    ]


def _list_recipes(_data_dir: Path | None) -> Entries:
    recipes = [load_recipe(name) for name in list_recipes()]
    return [
        {
            "recipe": recipe.name,
            "data": recipe.data.name,
            "backbones": [name for name in type(recipe.backbones).model_fields if getattr(recipe.backbones, name)],
            "title": recipe.summary,
        }
        for recipe in recipes
    ]


def _list_presets(_data_dir: Path | None) -> Entries:
    return [{"preset": name, "source": known.source, "equation": known.equation} for name, known in PRESETS.items()]


def _list_operators(_data_dir: Path | None) -> Entries:
    return [{"part": part, "is": text, "levels": list(levels)} for part, (text, levels) in _ROOMS.items()]


def _list_data(data_dir: Path | None) -> Entries:
    found = [describe_data(name, data_dir) for name in DATASETS]
    return [{"data": each.name, "usable": each.usable, "where": each.location, "state": each.state} for each in found]


SECTIONS: Mapping[str, Callable[[Path | None], Entries]] = {
    "experiments": _list_experiments,
    "searches": _list_searches,
    "recipes": _list_recipes,
    "presets": _list_presets,
    "operators": _list_operators,
    "data": _list_data,
}

_HINTS = {
    "experiments": "harness plan NAME shows the cells, harness status the progress",
    "searches": "Optuna studies: harness search NAME",
    "recipes": "data, model size and schedule: harness run EXPERIMENT --recipe NAME",
    "presets": "published operators: harness describe NAME; in an experiment `preset: NAME`",
    "operators": "levels of each part of Eq. 4 (arXiv:2112.12786), for rows and factors of an experiment",
    "data": "harness data shows more; --data DIR names the folder of the images",
}

_FORMATTERS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "presets": lambda entry: f"{entry['equation']}\n{entry['source']}",
    "operators": lambda entry: f"{', '.join(entry['levels'])}\n{entry['is']}",
    "data": lambda entry: entry["state"] + (f"\n{entry['where']}" if entry["usable"] else ""),
}
"""The text beside a name in sections that are not tables."""


def make_listing(sections: Iterable[str], *, data_dir: Path | None) -> dict[str, Entries]:
    """The entries of each section, as plain values."""
    return {section: SECTIONS[section](data_dir) for section in sections}


def describe_listing(listing: Mapping[str, Entries]) -> str:
    """The same as text for a terminal."""
    return "\n\n".join(
        f"{section}: {_HINTS[section]}\n\n{_to_table(section, entries)}" for section, entries in listing.items()
    )


def _to_table(section: str, entries: Entries) -> str:
    if section in _FORMATTERS:
        rows = [[next(iter(entry.values())), _FORMATTERS[section](entry)] for entry in entries]
        return tabulate(rows, tablefmt="plain", disable_numparse=True, maxcolwidths=[None, _WIDTH])
    headers = [name for name in entries[0] if not isinstance(entries[0][name], list)]
    rows = [["" if entry[name] is None else str(entry[name]) for name in headers] for entry in entries]
    return tabulate(rows, headers, disable_numparse=True)
