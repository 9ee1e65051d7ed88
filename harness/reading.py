"""From files and options to an `ExperimentSpec`; every mistake is a `SpecError` with its position."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from harness.document import Document, join_errors, parse_override, read_document, unknown_key
from harness.errors import SpecError
from harness.rows import list_rows
from harness.spec import ExperimentSpec, PublishedSpec, RecipeSpec
from harness.spec.data import DATASETS
from harness.spec.experiment import COLUMNS
from harness.tasks import TASKS
from paradigms.facts import shorten, unknown_name

Kind = TypeVar("Kind", bound=ExperimentSpec)

SEARCH = "search"
"""The key that makes a file a search."""

_DERIVED = {"name", "path", "overrides"}


def load_spec(
    path: Path | str, *, recipe: str | None = None, seeds: int | None = None, overrides: Sequence[str] = ()
) -> ExperimentSpec:
    """Read an experiment with its recipe; the arguments are those of `load_kind`.

    Raises:
        SpecError: a mistake in a file or an option, with its place; or the file is a search.
    """
    return load_kind(ExperimentSpec, path, recipe=recipe, seeds=seeds, overrides=overrides)


def load_kind(
    kind: type[Kind],
    path: Path | str,
    *,
    recipe: str | None = None,
    seeds: int | None = None,
    overrides: Sequence[str] = (),
) -> Kind:
    """Read a file of a kind: `ExperimentSpec`, or one that has further keys.

    Args:
        kind: the model of the whole file.
        path: a file, or the name of an experiment in `experiments/` here or of a shipped one.
        recipe: replaces the one that the file names.
        seeds: replaces the file's number; fewer than the file's count as an override, so that results are kept apart.
        overrides: `key.path=value`, put into the experiment or, where the key is a recipe's, into its recipe.

    Raises:
        SpecError: a mistake in a file or an option, with its place.
    """
    experiment, recipe_pairs = _read_experiment(kind, find_experiment(Path(path)), overrides)
    if SEARCH in experiment.root and SEARCH not in kind.model_fields:
        raise experiment.error(f"this file is a search: harness search {shlex.quote(str(path))}", SEARCH)
    if recipe is not None:
        experiment.replace(("recipe",), recipe, option="--recipe")
    if not any(pair.startswith("seeds=") for pair in overrides):
        _choose_seeds(experiment)
    if seeds is not None:
        overrides = [*overrides, *_limit_seeds(kind, experiment, seeds)]
        experiment.replace(("seeds",), seeds, option="--seeds")
    derived: dict[str, Any] = {"name": experiment.path.stem, "path": experiment.path, "overrides": tuple(overrides)}
    if "recipe" in experiment.root:
        derived["recipe"] = _load_recipe(experiment, recipe_pairs)
        del experiment.root["recipe"]
    spec = experiment.validate(kind, **derived)
    _check_measures(experiment, spec)
    _check_until(experiment, spec)
    _check_row_names(experiment, spec)
    _check_recipe_names(experiment, spec)
    return spec.with_positions(experiment.positions)


def _limit_seeds(kind: type[ExperimentSpec], experiment: Document, seeds: int) -> list[str]:
    stated = experiment.to_plain().get("seeds", kind.model_fields["seeds"].default)
    return [f"seeds={seeds}"] if isinstance(stated, int) and seeds < stated else []


def _choose_seeds(experiment: Document) -> None:
    """Replace the number of seeds by that of the recipe, where the file states one; the model checks both."""
    root = experiment.to_plain()
    under, recipe = root.get("seeds_under"), root.get("recipe")
    if isinstance(under, dict) and isinstance(recipe, str) and recipe in under:
        experiment.root["seeds"] = under[recipe]


def find_experiment(path: Path) -> Path:
    """The file itself, or the experiment that `table1`, `table1.yaml` or `experiments/table1.yaml` names.

    That is one in `experiments/` of the working directory, else a shipped one.

    Raises:
        SpecError: there is no such file.
    """
    try:
        path.name.encode()
        if path.exists():
            return path
    except UnicodeEncodeError:
        raise SpecError("the file's name is not UTF-8", path=path) from None
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise SpecError(f"cannot be read: {error.strerror}", path=path) from None
    if path.parent in (Path(), Path("experiments")):
        for folder in (Path("experiments"), get_shipped_dir()):
            named = folder / path.with_suffix(".yaml").name
            if named.is_file():
                return named
    raise SpecError(
        f"no such file; {unknown_name('experiment', path.stem, tuple(_list_files(get_shipped_dir())))}", path=path
    )


def get_shipped_dir() -> Path:
    """Where the shipped experiments and recipes lie: in an installed package inside it, in a checkout beside it."""
    package = Path(__file__).parent
    installed = package / "experiments"
    return installed if installed.is_dir() else package.parent / "experiments"


def find_experiments(folder: Path) -> dict[str, Path]:
    """The experiments of a folder by name, `table2` before `table11`; searches are left out.

    A file that cannot be read as YAML is among them: whoever reads it gets its mistakes.
    """
    return {name: path for name, path in _list_files(folder).items() if not is_search(path)}


def is_search(path: Path) -> bool:
    """Whether a file that can be read has the key of a search."""
    try:
        return SEARCH in read_document(path).root
    except SpecError:
        return False


def list_searches() -> dict[str, Path]:
    """The shipped searches by name."""
    return {name: path for name, path in _list_files(get_shipped_dir()).items() if is_search(path)}


def list_experiments() -> dict[str, Path]:
    """The shipped experiments by name."""
    return find_experiments(get_shipped_dir())


def _list_files(folder: Path) -> dict[str, Path]:
    """The YAML files of a folder by name."""
    return {file.stem: file for file in sorted(folder.glob("*.yaml"), key=_to_natural)}


def _to_natural(file: Path) -> list[int | str]:
    """A name as words and numbers by turns, so that it sorts as people count."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.stem)]


def _read_experiment(kind: type[ExperimentSpec], path: Path, overrides: Sequence[str]) -> tuple[Document, list[str]]:
    """The experiment with its overrides applied, and the overrides of its recipe."""
    experiment, recipe_pairs = read_document(path), []
    experiment_keys, recipe_keys = set(kind.model_fields), set(RecipeSpec.model_fields)
    for pair in overrides:
        key_path, value = parse_override(pair)
        option, key = f"--set {shorten(pair)}", experiment.split_path(key_path)
        if key[0] in experiment_keys - _DERIVED:
            _check_row_exists(experiment, key, option)
            experiment.replace(key, value, option=option)
        elif key[0] in recipe_keys - _DERIVED:
            recipe_pairs.append(pair)
        else:
            known = tuple(sorted((experiment_keys | recipe_keys) - _DERIVED))
            raise SpecError(unknown_key(key[0], known, kind, RecipeSpec), key=option)
    return experiment, recipe_pairs


def _check_row_exists(experiment: Document, key: tuple[str, ...], option: str) -> None:
    rows = experiment.to_plain().get("rows")
    if key[0] == "rows" and len(key) > 1 and isinstance(rows, dict) and key[1] not in rows:
        raise SpecError(unknown_name("row", key[1], tuple(rows)), key=option)


def list_recipes(*folders: Path) -> dict[str, Path]:
    """The shipped recipes by name, and those of further folders, which come before them."""
    shipped = get_shipped_dir() / "recipes"
    return {file.stem: file for folder in (shipped, *folders) for file in sorted(folder.glob("*.yaml"))}


def _load_recipe(experiment: Document, pairs: Sequence[str]) -> RecipeSpec:
    name = experiment.to_plain()["recipe"]
    recipes = list_recipes(experiment.path.parent / "recipes")
    if not isinstance(name, str):
        raise experiment.error(f"must be the name of a recipe, got {shorten(repr(name))}", "recipe")
    if name not in recipes:
        raise experiment.error(unknown_name("recipe", name, tuple(sorted(recipes))), "recipe")
    path = recipes[name]
    recipe = read_document(path)
    for pair in pairs:
        key_path, value = parse_override(pair)
        recipe.replace(recipe.split_path(key_path), value, option=f"--set {shorten(pair)}")
    return _make_recipe(recipe, recipes)


def _make_recipe(recipe: Document, recipes: Mapping[str, Path]) -> RecipeSpec:
    """The recipe with the one that it starts from, which starts from none itself."""
    derived: dict[str, Any] = {"name": recipe.path.stem, "path": recipe.path}
    name = recipe.to_plain().get("init_recipe")
    if name is not None:
        if not isinstance(name, str) or name not in recipes:
            raise recipe.error(unknown_name("recipe", name, tuple(sorted(recipes))), "init_recipe")
        source = read_document(recipes[name])
        if source.root.get("init_recipe") is not None:
            raise recipe.error(f"{name} starts from another recipe itself", "init_recipe")
        derived["init_recipe"] = source.validate(RecipeSpec, name=name, path=recipes[name])
        del recipe.root["init_recipe"]
    spec = recipe.validate(RecipeSpec, **derived)
    if spec.data.name not in DATASETS:
        raise recipe.error(unknown_name("dataset", spec.data.name, tuple(DATASETS)), "data", "name")
    if spec.data.task not in TASKS:
        raise recipe.error(unknown_name("task", spec.data.task, tuple(TASKS)), "data", "task")
    if spec.floor_width is not None and TASKS[spec.data.task].frameworks:
        raise recipe.error(f"floors classify images; task {spec.data.task!r} has none", "floor_width")
    for place, training in ("training", spec.training), *spec.training_of.items():
        if training.ema_decay == 1:
            key = ("training",) if place == "training" else ("training_of", place)
            raise recipe.error("must be less than 1: with decay 1 the average never changes", *key, "ema_decay")
        try:
            TASKS[spec.data.task].check_training(training)
        except ValueError as error:
            raise recipe.error(str(error), "data", "task") from None
    return spec


def load_recipe(name: str) -> RecipeSpec:
    """Read a shipped recipe.

    Raises:
        SpecError: there is none of this name, or a mistake in it.
    """
    paths = list_recipes()
    if name not in paths:
        raise SpecError(unknown_name("recipe", name, tuple(paths)))
    return _make_recipe(read_document(paths[name]), paths)


def _check_measures(experiment: Document, spec: ExperimentSpec) -> None:
    """The deciding measure, columns and published scores are measures of the recipe's task."""
    measures = tuple(measure.name for measure in TASKS[spec.recipe.data.task].measures)
    errors = []
    if spec.measure is not None and spec.measure not in measures:
        errors.append(experiment.error(unknown_name("measure", spec.measure, measures), "measure"))
    known = (*COLUMNS, *measures)
    errors += [
        experiment.error(unknown_name("column", column, known), "columns", number)
        for number, column in enumerate(spec.columns)
        if column not in known
    ]
    keys = (*PublishedSpec.model_fields, *measures)
    errors += [
        experiment.error(unknown_name("key", key, keys), "published", name, key)
        for name, published in spec.published.items()
        for key in published.scores
        if key not in measures
    ]
    if errors:
        raise join_errors(errors)


def _check_row_names(experiment: Document, spec: ExperimentSpec) -> None:
    """Whatever names a row names one that exists; only a quoted number may stand without a row."""
    try:
        list_rows(spec.model_copy(update={"ablate": None}))
    except ValueError as error:
        raise experiment.error(str(error), "rows" if spec.factors is None else "factors") from None
    try:
        known = tuple(list_rows(spec))
    except ValueError as error:
        raise experiment.error(str(error), "ablate") from None
    names: dict[tuple[str | int, ...], str] = {("baseline",): spec.baseline}
    names |= {("published", name): name for name, row in spec.published.items() if not row.quoted}
    names |= {
        ("claims", number, *key): name
        for number, claim in enumerate(spec.claims)
        for key, name in claim.row_keys.items()
    }
    errors = [
        experiment.error(unknown_name("row", name, known), *key) for key, name in names.items() if name not in known
    ]
    if errors:
        raise join_errors(errors)


def _check_until(experiment: Document, spec: ExperimentSpec) -> None:
    """Seeds until resolved are for verdicts and claims: effects of factors and searches have no levels for looks."""
    for key in ("factors", SEARCH):
        if spec.until_resolved is not None and key in experiment.root:
            raise experiment.error(f"rows cannot get seeds until they are resolved in an experiment with {key}", key)


def _check_recipe_names(experiment: Document, spec: ExperimentSpec) -> None:
    """What holds under one recipe is stated for recipes that exist."""
    known = tuple(list_recipes(experiment.path.parent / "recipes"))
    stated: dict[tuple[str, ...], str] = {("cell", "sizes", name): name for name in spec.cell.sizes}
    stated |= {("seeds_under", name): name for name in spec.seeds_under}
    for row, fields in spec.rows.items():
        stated |= {("rows", row, "sizes", name): name for name in fields.sizes}
        stated |= {("rows", row, "under", name): name for name in fields.under}
    unknown = {key: name for key, name in stated.items() if name not in known}
    if unknown:
        raise join_errors(experiment.error(unknown_name("recipe", name, known), *key) for key, name in unknown.items())
