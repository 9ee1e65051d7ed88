"""From files and options to an `ExperimentSpec`: every mistake is a `SpecError` with its place."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.document import Document, join_errors, parse_override, read_document
from harness.errors import SpecError
from harness.spec import ExperimentSpec, RecipeSpec
from paradigms.config import unknown_name

_DERIVED = {"name", "path", "overrides"}


def load_spec(
    path: Path, *, recipe: str | None = None, seeds: int | None = None, overrides: Sequence[str] = ()
) -> ExperimentSpec:
    """Read an experiment with its recipe.

    Args:
        path: a file, or a shipped experiment's name.
        recipe: replaces the one that the file names.
        seeds: replaces the file's number; fewer than the file's count as an override, so that results are kept apart.
        overrides: `key.path=value`, put into the experiment or, where the key is a recipe's, into its recipe.

    Raises:
        SpecError: a mistake in a file or an option, with its place.
    """
    experiment, recipe_pairs = _read_experiment(find_experiment(path), overrides)
    if recipe is not None:
        experiment.replace(("recipe",), recipe, option="--recipe")
    if seeds is not None:
        overrides = [*overrides, *_narrow(experiment, seeds)]
        experiment.replace(("seeds",), seeds, option="--seeds")
    derived: dict[str, Any] = {"name": experiment.path.stem, "path": experiment.path, "overrides": tuple(overrides)}
    if "recipe" in experiment.root:
        derived["recipe"] = _load_recipe(experiment, recipe_pairs)
        del experiment.root["recipe"]
    spec = experiment.validate(ExperimentSpec, **derived)
    _check_row_names(experiment, spec)
    return spec


def _narrow(experiment: Document, seeds: int) -> list[str]:
    stated = experiment.to_plain().get("seeds", ExperimentSpec.model_fields["seeds"].default)
    return [f"seeds={seeds}"] if isinstance(stated, int) and seeds < stated else []


def find_experiment(path: Path) -> Path:
    """The file itself, or the shipped experiment that `table1`, `table1.yaml` or `experiments/table1.yaml` names.

    Raises:
        SpecError: there is no such file.
    """
    if path.exists():
        return path
    shipped = get_shipped_dir() / path.with_suffix(".yaml").name
    if path.parent in (Path(), Path("experiments")) and shipped.is_file():
        return shipped
    names = tuple(sorted(file.stem for file in get_shipped_dir().glob("*.yaml")))
    raise SpecError(f"no such file; {unknown_name('experiment', path.stem, names)}", path=path)


def get_shipped_dir() -> Path:
    """Where the shipped experiments and recipes lie: in an installed package inside it, in a checkout beside it."""
    package = Path(__file__).parent
    installed = package / "experiments"
    return installed if installed.is_dir() else package.parent / "experiments"


def error_at(spec: ExperimentSpec, message: str, *key: str | int) -> SpecError:
    """The mistake at `key` of an experiment that was read before, with the place where it stands."""
    if spec.path is None:
        return SpecError(message, key=".".join(str(part) for part in key))
    experiment, _ = _read_experiment(spec.path, spec.overrides)
    return experiment.error(message, *key)


def _read_experiment(path: Path, overrides: Sequence[str]) -> tuple[Document, list[str]]:
    """The experiment with its overrides applied, and the overrides of its recipe."""
    experiment, recipe_pairs = read_document(path), []
    experiment_keys, recipe_keys = set(ExperimentSpec.model_fields), set(RecipeSpec.model_fields)
    for pair in overrides:
        key, value = parse_override(pair)
        option = f"--set {pair}"
        if key[0] in experiment_keys - _DERIVED:
            _check_row_exists(experiment, key, option)
            experiment.replace(key, value, option=option)
        elif key[0] in recipe_keys - _DERIVED:
            recipe_pairs.append(pair)
        else:
            known = tuple(sorted((experiment_keys | recipe_keys) - _DERIVED))
            raise SpecError(unknown_name("key", key[0], known), key=option)
    return experiment, recipe_pairs


def _check_row_exists(experiment: Document, key: tuple[str, ...], option: str) -> None:
    rows = experiment.to_plain().get("rows")
    if key[0] == "rows" and len(key) > 1 and isinstance(rows, dict) and key[1] not in rows:
        raise SpecError(unknown_name("row", key[1], tuple(rows)), key=option)


def _load_recipe(experiment: Document, pairs: Sequence[str]) -> RecipeSpec:
    name = experiment.to_plain()["recipe"]
    folders = (experiment.path.parent / "recipes", get_shipped_dir() / "recipes")
    path = next((folder / f"{name}.yaml" for folder in folders if (folder / f"{name}.yaml").is_file()), None)
    if path is None:
        known = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
        raise experiment.error(unknown_name("recipe", name, tuple(known)), "recipe")
    recipe = read_document(path)
    for pair in pairs:
        key, value = parse_override(pair)
        recipe.replace(key, value, option=f"--set {pair}")
    return recipe.validate(RecipeSpec, name=path.stem, path=path)


def load_recipe(name: str) -> RecipeSpec:
    """Read a shipped recipe.

    Raises:
        SpecError: there is none of this name, or a mistake in it.
    """
    paths = {path.stem: path for path in sorted((get_shipped_dir() / "recipes").glob("*.yaml"))}
    if name not in paths:
        raise SpecError(unknown_name("recipe", name, tuple(paths)))
    return read_document(paths[name]).validate(RecipeSpec, name=name, path=paths[name])


def _check_row_names(experiment: Document, spec: ExperimentSpec) -> None:
    names: dict[tuple[str, ...], str] = {("baseline",): spec.baseline, **{("published", n): n for n in spec.published}}
    unknown = {key: name for key, name in names.items() if name not in spec.rows}
    if unknown:
        known = tuple(spec.rows)
        raise join_errors(experiment.error(unknown_name("row", name, known), *key) for key, name in unknown.items())
