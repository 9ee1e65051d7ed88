"""`harness checklist`: the paragraphs on statistical significance and compute that venues ask for.

The paragraphs answer the items of the NeurIPS checklist on error bars and on compute resources.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from harness.attestation import Digests
from harness.errors import StoreError
from harness.execution.adoption import gather_records
from harness.execution.plan import judge_records
from harness.initial import FromFile
from harness.plan import Plan
from harness.record import Record, RunStatus
from harness.spec import AugmentationSpec, BackboneSpec
from harness.statistics import ALPHA
from harness.table.columns.scores import describe_placebo
from harness.table.results import Results
from harness.tasks import find_margin
from harness.text import count_noun, escape_latex, escape_markdown
from harness.tracking import Tracker

Paragraphs = Mapping[str, Sequence[str]]
"""Sentences by the title of their paragraph, as plain text."""

VERSIONS = ("python", "torch", "timm")

SHORT = 12
"""Number of characters of a commit that are shown."""


def read_paragraphs(plan: Plan, tracker: Tracker, digests: Mapping[str, Digests], results: Path) -> Paragraphs:
    """The paragraphs on the runs in the store and in the record file; stores nothing and reads no predictions.

    Raises:
        StoreError: there is no run of this plan, the record file is damaged, or the store cannot be used.
    """
    made = judge_records(plan, tracker, gather_records(plan, tracker, results), digests)
    if not _list_records(made):
        name, recipe = plan.spec.name, plan.spec.recipe.name
        raise StoreError(f"no run of {name} under recipe {recipe} is stored; `harness run` makes them")
    return list_paragraphs(made)


def list_paragraphs(results: Results) -> Paragraphs:
    """Every paragraph of the checklist."""
    return {
        "Statistical significance": [
            *_describe_replicates(results),
            *_describe_tests(results),
            *_describe_evaluation(results),
            *_describe_outcomes(results),
        ],
        "Compute": list(_describe_compute(results)),
    }


def to_markdown(paragraphs: Paragraphs) -> str:
    """The paragraphs in Markdown."""
    return "\n\n".join(f"**{title}.** {escape_markdown(' '.join(text))}" for title, text in paragraphs.items())


def to_latex(paragraphs: Paragraphs) -> str:
    r"""The paragraphs in LaTeX, with `\paragraph`."""
    return "\n\n".join(rf"\paragraph{{{title}.}} {escape_latex(' '.join(text))}" for title, text in paragraphs.items())


FORMATS: dict[str, Callable[[Paragraphs], str]] = {"markdown": to_markdown, "latex": to_latex}


def _list_records(results: Results) -> list[Record]:
    return [record for row in results.replicates.values() for record in row.records.values()]


def _describe_replicates(results: Results) -> Iterator[str]:
    """The number of seeds, what a seed varies, and what ± means."""
    rows = results.replicates.values()
    floors = sum(row.row.is_floor for row in rows)
    counts = {len(row.ok) for row in rows}
    shown = count_noun(len(rows) - floors, "row")
    shown += f" and {count_noun(floors, 'model')} without attention" if floors else ""
    if counts == {results.plan.spec.seeds}:
        yield f"The table has {shown}, each trained with n = {max(counts)} random seed{'s' * (max(counts) > 1)}."
    else:
        span = " to ".join(map(str, sorted({min(counts), max(counts)})))
        planned = count_noun(results.plan.spec.seeds, "planned seed")
        yield f"The table has {shown}; n, the seeds with a measurement, is {span} of {planned} per row."
    varied = _list_varied(results)
    yield f"A seed sets {', '.join(varied[:-1])}{' and ' if len(varied) > 1 else ''}{varied[-1]}."
    given = [row.row.name for row in rows if isinstance(row.row.cell.init_from, FromFile)]
    if given:
        yield f"The initial weights of {', '.join(given)} come from a file, the same for every seed."
    yield (
        "All seeds share one split into training, validation and test images, so that the spread does not include the "
        "choice of the images."
    )
    if max(counts) > 1:
        yield f"± is the standard deviation of {results.measure.title} over the seeds (with n - 1)."


def _list_varied(results: Results) -> list[str]:
    cells = [row.cell for row in results.plan.rows]
    varied = [] if all(isinstance(cell.init_from, FromFile) for cell in cells) else ["the initial weights"]
    varied.append("the order of the training images")
    if any(cell.training.augmentation != AugmentationSpec() for cell in cells):
        varied.append("their augmentation")
    if any(isinstance(cell.sizes, BackboneSpec) and cell.sizes.drop_path_rate > 0 for cell in cells):
        varied.append("drop path")
    return varied


def _describe_tests(results: Results) -> Iterator[str]:
    """Intervals, test, correction and margin."""
    spec, tests = results.plan.spec, results.num_tests
    if tests == 0:
        yield "No difference between rows is tested."
        return
    level = f"{100 * (1 - ALPHA):g} %"
    moderated = ", in which the variance of each row is moderated towards that of all rows" if tests > 1 else ""
    yield (
        f"Each row is compared with the baseline {spec.baseline} over equal seeds. The error of a difference comes "
        f"from a block design with seeds as blocks{moderated}; errors are assumed to be normally distributed. "
        f"Intervals of differences are simultaneous {level} intervals. The test is Dunnett's two-sided step-down test "
        f"over {count_noun(tests, 'comparison')}, which corrects for multiple comparisons: the family-wise error rate "
        f"is {100 * ALPHA:g} %."
    )
    if results.plan.placebo is not None:
        yield describe_placebo(results)
    margin = find_margin(spec)
    if margin:
        yield (
            f"A row is called equivalent to the baseline if the interval of its difference lies within ±{margin:g} "
            f"{results.measure.difference}."
        )


def _describe_evaluation(results: Results) -> Iterator[str]:
    """The images and the weights that are evaluated."""
    spec, records = results.plan.spec, _list_records(results)
    images = _list_distinct(
        f"{record.metrics['test/images']:,.0f}" for record in records if "test/images" in record.metrics
    )
    weights = "the weights" if spec.recipe.training.ema_decay is None else "the moving average of the weights"
    yield (
        f"The test set of {spec.recipe.data.name}{f' ({images} images)' if images else ''} is measured once per run, "
        f"with {weights} after the last epoch."
    )
    num_val = spec.recipe.data.val_images
    yield (
        f"Validation uses {num_val:,} images that are not trained on."
        if num_val
        else "There are no separate validation images: curves show the test set."
    )


def _describe_outcomes(results: Results) -> Iterator[str]:
    """The number of runs without a measurement, and why."""
    records, planned = _list_records(results), len(results.plan.runs)
    others = Counter(record.status for record in records if record.status != RunStatus.OK)
    missing = planned - len(records)
    if others or missing:
        parts = [f"{count} {status.value.replace('_', ' ')}" for status, count in others.items()]
        parts += [f"{missing} not finished"] if missing else []
        measured = planned - missing - others.total()
        yield f"Of {count_noun(planned, 'planned run')}, {measured} gave a measurement; others: {', '.join(parts)}."
    else:
        yield f"All {count_noun(planned, 'run')} gave a measurement; none diverged or failed."
    if any(status.is_bad for status in others):
        yield "Comparisons that lost runs in this way are left unresolved."
    stale = [row.row.name for row in results.replicates.values() if row.is_stale]
    if stale:
        runs = "these runs" if len(stale) == len(results.replicates) else f"the runs of {', '.join(stale)}"
        yield f"Code or data have changed since {runs}."


def _describe_compute(results: Results) -> Iterator[str]:
    """Hours, hardware, versions and code."""
    records = _list_records(results)
    seconds = sorted(record.metrics["seconds"] for record in records if "seconds" in record.metrics)
    if seconds:
        yield (
            f"The {count_noun(len(seconds), 'run')} of the table took {_show_hours(sum(seconds))} in total. One run "
            f"took {_show_hours(median(seconds))} (median; {_show_hours(seconds[0])} to {_show_hours(seconds[-1])})."
        )
        yield "Rehearsals, searches and runs that are not in the table are not counted."
    memory = [record.metrics["peak_memory_gb"] for record in records if "peak_memory_gb" in record.metrics]
    used = f" and at most {max(memory):.1f} GB of memory" if memory else ""
    device, threads = (_list_provenance(records, name) for name in ("device", "threads"))
    yield (f"Hardware: {device}; a run used {threads} CPU thread{'s' * (threads != '1')}{used}.")
    yield f"Software: {', '.join(f'{name} {_list_provenance(records, name)}' for name in VERSIONS)}."
    commits = _list_distinct(record.provenance["commit"][:SHORT] for record in records if "commit" in record.provenance)
    is_dirty = any(record.provenance.get("dirty") == "true" for record in records)
    yield f"Code: commit {commits or 'unknown'}{', with uncommitted changes' if is_dirty else ''}."


def _show_hours(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"


def _list_provenance(records: Iterable[Record], name: str) -> str:
    return _list_distinct(record.provenance[name] for record in records if name in record.provenance) or "unknown"


def _list_distinct(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
