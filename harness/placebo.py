"""The placebo: the baseline again with other random streams, a control of the whole table."""

from collections.abc import Iterator, Mapping

from harness.document import join_errors
from harness.errors import SpecError
from harness.spec import ExperimentSpec, RowSpec

FIRST_SEED = 1_000
"""The seed of a placebo's replicate 0; no other row has so many replicates (`harness.spec.field.Replicates`)."""


def check_placebo(spec: ExperimentSpec, rows: Mapping[str, RowSpec]) -> None:
    """Check what the rows of an experiment state of its placebo.

    Raises:
        SpecError: every mistake: a placebo states something else, is the baseline, is not the only one, or another row
            starts from its weights.
    """
    errors = list(_find_mistakes(spec, rows))
    if errors:
        raise join_errors(errors)


def repeat_baseline(rows: Mapping[str, RowSpec], baseline: str) -> dict[str, RowSpec]:
    """The rows with everything that they inherit, where the placebo has what the baseline has."""
    repeated = {"placebo": True, "also_changes": ()}
    return {name: rows[baseline].model_copy(update=repeated) if row.placebo else row for name, row in rows.items()}


def _find_mistakes(spec: ExperimentSpec, rows: Mapping[str, RowSpec]) -> Iterator[SpecError]:
    placebos = [name for name, row in rows.items() if row.placebo]
    for name in placebos:
        for key in rows[name].model_fields_set - {"placebo"}:
            yield spec.error("a placebo is the baseline again and states nothing else", "rows", name, key)
        if name == spec.baseline:
            yield spec.error("the baseline cannot be its own placebo", "rows", name, "placebo")
        if name != placebos[0]:
            message = f"an experiment has one placebo, {placebos[0]!r}: a second one would have the same runs"
            yield spec.error(message, "rows", name, "placebo")
    for name, row in rows.items():
        if row.init_from in placebos:
            message = f"{row.init_from!r} is the placebo; the baseline is {spec.baseline!r}"
            yield spec.error(message, "rows", name, "init_from")


def explain_missing_source(row: RowSpec, rows: Mapping[str, RowSpec]) -> str | None:
    """Why a placebo cannot be trained whose baseline starts from a row's runs; None where it can be."""
    if row.placebo and row.init_from in rows:
        return f"the baseline starts from row {row.init_from!r}, which has no runs with the seeds of a placebo"
    return None
