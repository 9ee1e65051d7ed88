"""What a reader has to know of the columns of a table, a sentence or two each, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.spec import ExperimentSpec
from harness.statistics import MAX_EXACT_SEEDS
from harness.table.format import QUOTED, TERM_TITLES, TICK
from harness.table.reason import AT_CHANCE, show_reasons
from harness.table.scores import name_scores
from harness.tasks import TASKS
from harness.text import count_noun, escape_code, escape_markdown

if TYPE_CHECKING:
    from harness.table.results import Results

MARKS = {
    "missing": "no run of this row has ended yet.",
    "partial": "some of the planned replicates have no result yet.",
    "stale": "code or data have changed since these runs; `harness run` trains them again.",
    "other environment": "made in another environment (versions, threads, device) than the baseline's run of its seed; "
    "no difference is shown. The csv has these columns.",
    "mixed environments": "its runs were made with different versions, threads or devices; each is compared with the "
    "baseline's run of the same environment.",
    AT_CHANCE: "the last validation of a run looks like guessing ({chance_rule}); nothing was learnt there.",
    "under-trained": "validation {title} still {climbed} when training ended; more epochs may change this row.",
    "at the ceiling": "{ceiling_rule}; differences cannot show here.",
    "quoted": "the paper's number alone; no row of this experiment.",
}


def explain_score(results: Results) -> Iterator[str]:
    """The score's mean and spread."""
    yield f"**{results.measure.title}** is the mean ± the standard deviation over the n measured replicates."


def explain_throughput(_: Results) -> Iterator[str]:
    """What the speed is of."""
    yield "**images/s** is the speed of training beside the other workers; it is no benchmark."


def explain_delta(results: Results) -> Iterator[str]:
    """Differences, intervals and verdicts."""
    frame, spec = results.frame, results.plan.spec
    tests, baseline = int(frame["holm_p"].notna().sum()), escape_markdown(spec.baseline)
    if frame.loc[frame["row"] == spec.baseline, "skipped"].any():
        yield f"There is no **Δ**: the baseline, {baseline}, is skipped."
        return
    if tests == 0:
        yield f"**Δ** is the row less {baseline}. One pair of seeds has no interval and resolves nothing."
        return
    alike = "augmentation and initial weights" if spec.recipe.init_recipe is None else "augmentation"
    yield (
        f"**Δ** is the row less {baseline}, seed by seed (the same split, order, {alike}), with the 95 % "
        "Student-t interval of the mean difference."
    )
    yield (
        f"**verdict**: better or worse only where the paired t-test rejects equality at 5 % after Holm's correction "
        f"over the {count_noun(tests, 'comparison')} of this table, which is stricter than one interval without zero; "
        f"everything else is unresolved.{_to_sign_flip_note(int(frame['pairs'].max()))}"
    )


def _to_sign_flip_note(pairs: int) -> str:
    if pairs > MAX_EXACT_SEEDS:
        return ""
    return f" The exact sign-flip p-value stands beside it; with {pairs} pairs it cannot be below {2 / 2**pairs:.2g}."


def explain_outcomes(results: Results) -> Iterator[str]:
    """Outcomes that are no measurement, and their reasons."""
    if any(results.frame["outcomes"]):
        yield (
            "**n** counts measured replicates of planned ones, then every other outcome; `diverged@412` left the "
            "finite numbers at step 412. Means are over the measured replicates; where a bad outcome has thinned out a "
            "comparison, the rest resolves nothing."
        )
    for row in (*results.rows, *results.floors):
        if row["reasons"]:
            yield escape_markdown(f"{row['row']}: {show_reasons(row['reasons'])}.")


def explain_curve(results: Results) -> Iterator[str]:
    """The curve's mean."""
    yield (f"**val {results.measure.title} by epoch** is the mean over the replicates; the csv has every epoch.")


def explain_paper(results: Results) -> Iterator[str]:
    """What the paper's numbers are of."""
    frame, spec = results.frame, results.plan.spec
    published = [name_scores(results.measure).published, "published_params", "published_macs", "published_throughput"]
    if not (frame[published].notna().any(axis=None) or any(frame["published_curve"])):
        return
    printed = "the paper's numbers" if spec.source is None else f"as printed in {escape_markdown(to_source(spec))}"
    yield (
        f"**paper**: {printed}. Those are of other data, sizes and schedules than the recipe "
        f"{escape_code(spec.recipe.name)}, "
        "unless it is the paper's own: compare the sign and the order of differences, not the values."
    )
    if frame["published_quoted"].any():
        yield f"{QUOTED} quoted there from another paper, not trained by the authors."


def to_source(spec: ExperimentSpec) -> str:
    """Where the experiment is printed."""
    assert spec.source is not None
    places = {"Table": spec.source.table, "Figure": spec.source.figure}
    return ", ".join([spec.source.paper, *(f"{kind} {n}" for kind, n in places.items() if n is not None)])


def explain_floors(results: Results) -> Iterator[str]:
    """Floors, with a warning where the baseline is not above every one."""
    frame, spec, measure = results.frame, results.plan.spec, results.measure
    if not frame["is_floor"].any():
        yield f"The recipe {escape_code(spec.recipe.name)} trains no floors (models without attention)."
        return
    scores = measure.sign * frame[name_scores(measure).mean]
    is_below = scores[frame["row"] == spec.baseline].max() <= scores[frame["is_floor"]].max()
    baseline = escape_markdown(spec.baseline)
    warning = f" {baseline} is not above them: this table shows early optimization, not quality." if is_below else ""
    yield f"**Floors** have no attention.{warning}"


def explain_expected(results: Results) -> Iterator[str]:
    """Outcomes that the paper reports in words."""
    if results.frame["expected"].any():
        yield "`paper: ...` is the outcome that the paper reports in words, then whether every replicate agrees."


def explain_marks(results: Results) -> Iterator[str]:
    """The meaning of every mark that some row has."""
    present = {mark for marks in results.frame["marks"] for mark in marks}
    measure, task = results.measure, TASKS[results.plan.spec.recipe.data.task]
    climbed = "climbed" if measure.direction == "higher" else "fell"
    words = {"title": measure.title, "climbed": climbed}
    words |= {"chance_rule": task.chance_rule, "ceiling_rule": task.ceiling_rule}
    yield from (f"`{mark}`: {meaning.format(**words)}" for mark, meaning in MARKS.items() if mark in present)


def explain_terms(_: Results) -> Iterator[str]:
    """The terms of Eq. 4."""
    titles = ", ".join(f"{title} {term}" for term, title in TERM_TITLES.items())
    yield f"Terms of Eq. 4: {titles}; {TICK} in every stage, a number in that stage alone."
