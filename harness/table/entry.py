"""The data of one row of the table: its runs, verdict, sizes, marks and published numbers."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from statistics import fmean

from harness.attestation import ATTESTED, UNATTESTED
from harness.environment import is_mixed
from harness.measure import Measure
from harness.plan import PlannedRow
from harness.record import Record, RunStatus
from harness.spec import Expectation, ExperimentSpec, PublishedSpec
from harness.statistics import Verdict, average_curves, is_under_trained
from harness.table.comparison import Judged
from harness.table.reason import AT_CHANCE, Outcome, describe_outcome, is_run_at_chance
from harness.table.selection import Replicates, Runs, is_paired_in_environments
from harness.tasks import TASKS

SKIPPED, QUOTED = "skipped", "quoted"
"""Marks of rows without runs: the recipe cannot run the row, or the experiment only quotes it."""

ALSO_CHANGES = "also changes"
"""The mark of a row that declares further differences to the baseline than its levels."""

OWN_VARIANCE = "own variance"
"""The mark of a row whose variance is an outlier among the rows."""

DISPUTED = "t-test disagrees"
"""The mark of a row on which the paired t-test of its runs and the baseline's gives another verdict."""

THESE_IMAGES = "these images"
"""The mark of a row whose verdict may not hold on other test images."""

NOT_COMPARABLE = "not comparable"

SAME_SIZE = 0.01
"""Relative difference of parameters up to which a printed model counts as the same model."""

PLACEBO = "placebo"
"""The mark of the baseline's cell with other seeds."""

PLACEBO_DIFFERS = "the placebo differs: do not trust this table's verdicts"
"""The mark of a placebo that is judged better or worse than the baseline, whose model it is."""

UNCOMPARED = Judged()


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        runs: the runs of the row; empty if the recipe skips the row or the experiment only quotes it.
        row: the planned row; None in these cases.
        seeds: the planned replicates.
        size: parameters and multiply-adds.
        base_params: parameters of the baseline.
        predicted: the interval in which one more run of the row is expected.
        is_best: whether it has the best score, or one that cannot be separated from it.
        skipped: why the recipe skips the row; empty if it does not.
        marks: warnings that a reader needs to interpret the row.
    """

    name: str
    spec: ExperimentSpec
    runs: Runs
    row: PlannedRow | None = None
    seeds: tuple[int, ...] = ()
    judged: Judged = UNCOMPARED
    size: tuple[int | None, int | None] = (None, None)
    base_params: int | None = None
    predicted: tuple[float, float] | None = None
    is_best: bool = False
    skipped: str = ""
    marks: tuple[str, ...] = ()

    @property
    def is_floor(self) -> bool:
        """Whether it is a model without attention."""
        return self.row is not None and self.row.is_floor

    @property
    def records(self) -> list[Record]:
        """The records of all seeds, whatever their outcome."""
        return list(self.runs.records.values())

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The outcomes of runs without a measurement, by seed."""
        return tuple((record.status, record.step) for record in self.records if record.status != RunStatus.OK)

    @property
    def reasons(self) -> dict[int, str]:
        """Why runs have no measurement, or a doubtful one, by seed."""
        doubtful = (record for record in self.records if record.status != RunStatus.OK or is_run_at_chance(record))
        return {record.seed: describe_outcome(record) for record in doubtful}

    @property
    def curve(self) -> tuple[float, ...]:
        """The validation score of the deciding measure by epoch, averaged over replicates."""
        return average_scores(self.runs)

    @property
    def printed(self) -> PublishedSpec:
        """The numbers that the paper prints for the row."""
        return self.spec.published.get(self.name, PublishedSpec())

    @property
    def published_delta(self) -> float | None:
        """The difference to the baseline in the paper."""
        measure, baseline = self.runs.measure.name, self.spec.published.get(self.spec.baseline, PublishedSpec())
        score, base = self.printed.scores.get(measure), baseline.scores.get(measure)
        return None if score is None or base is None or self.name == self.spec.baseline else round(score - base, 6)

    @property
    def replication(self) -> str | None:
        """Whether one more run of the row could have the printed score, or why this cannot be compared."""
        printed = self.printed.scores.get(self.runs.measure.name)
        if printed is None or self.row is None:
            return None
        reason = self._find_obstacle()
        if reason:
            return f"{NOT_COMPARABLE}: {reason}"
        assert self.predicted is not None
        return Agreement.AS_PUBLISHED if self.predicted[0] <= printed <= self.predicted[1] else Agreement.DIFFERS

    def _find_obstacle(self) -> str:
        """Why the printed score cannot be compared with this row; empty if it can."""
        source, params = self.spec.source, self.size[0]
        if source is None or self.spec.recipe.paper != source.paper:
            return "another recipe"
        if self.spec.overrides:
            return "a changed recipe"
        if self.printed.quoted:
            return "quoted from another paper"
        if params is not None and self.printed.params is not None:
            ratio = params / (1e6 * self.printed.params)
            if abs(ratio - 1) > SAME_SIZE:
                return f"{ratio:.2f} times as many parameters"
        return "" if self.predicted is not None else "one run has no spread"

    @property
    def expected(self) -> Expectation | None:
        """The outcome that a claim of the paper states; None if the recipe skips the row."""
        return None if self.row is None else self.spec.find_expected(self.name)

    @property
    def last_run(self) -> datetime | None:
        """The time at which its last run ended."""
        times = [record.end_time for record in self.records]
        return datetime.fromtimestamp(max(times), UTC) if times else None

    def average(self, metric: str) -> float | None:
        """The mean of a metric over the measured replicates."""
        return average(self.runs.ok, metric)

    def origins(self, name: str) -> tuple[str, ...]:
        """The distinct values of an entry of the provenance of the runs."""
        return tuple(dict.fromkeys(r.provenance[name] for r in self.records if name in r.provenance))


class Agreement(StrEnum):
    """Whether one more run of a row could have the printed score."""

    AS_PUBLISHED = "as published"
    DIFFERS = "differs"


def average(records: Iterable[Record], metric: str) -> float | None:
    """The mean over the records that have a metric."""
    values = [record.metrics[metric] for record in records if metric in record.metrics]
    return fmean(values) if values else None


def find_size(replicates: Replicates, known: Mapping[str, tuple[int, int]]) -> tuple[int | None, int | None]:
    """Parameters and multiply-adds as measured by a run, or else as known for the cell."""
    params, macs = known.get(replicates.row.cell.id, (None, None))
    return _find_metric(replicates, "params", params), _find_metric(replicates, "macs", macs)


def _find_metric(replicates: Replicates, metric: str, otherwise: int | None) -> int | None:
    measured = (r.metrics[metric] for r in replicates.records.values() if metric in r.metrics)
    first = next(measured, None)
    return otherwise if first is None else round(first)


def list_scores(record: Record, measure: Measure) -> list[float]:
    """The validation scores of a measure, one per epoch."""
    return [epoch.metrics[measure.val] for epoch in record.curve if measure.val in epoch.metrics]


def average_scores(runs: Runs) -> tuple[float, ...]:
    """The mean of the curves up to the last epoch that all of them have."""
    return tuple(average_curves(list_scores(record, runs.measure) for record in runs.ok))


def list_marks(row: Replicates, baseline: Replicates | None, spec: ExperimentSpec) -> Iterator[str]:
    """The marks of a planned row; `baseline` is None if it is skipped."""
    if not row.records:
        yield "missing"
        return
    climbing = [row.measure.sign * score for score in average_scores(row)]
    marks = {
        "stale": row.is_stale,
        ATTESTED: any(ATTESTED in record.provenance for record in row.records.values()),
        UNATTESTED: any(UNATTESTED in record.provenance for record in row.records.values()),
        ALSO_CHANGES: bool(row.row.also_changes),
        "other environment": baseline is not None and not is_paired_in_environments(row, baseline),
        PLACEBO: row.row.is_placebo,
        "mixed environments": is_mixed(record.provenance for record in row.records.values()),
        AT_CHANCE: any(map(is_run_at_chance, row.ok)),
        "partial": not row.is_complete,
        "under-trained": is_under_trained(climbing, row.measure.relevant_gain),
        "at the ceiling": _is_at_ceiling(row, spec.recipe.data.test_images),
    }
    yield from (mark for mark, applies in marks.items() if applies)


def list_test_marks(judged: Judged, *, is_placebo: bool = False) -> Iterator[str]:
    """The marks of the verdict on a row."""
    if is_placebo and judged.verdict in (Verdict.BETTER, Verdict.WORSE):
        yield PLACEBO_DIFFERS
    if judged.comparison is not None and judged.comparison.has_own_variance:
        yield OWN_VARIANCE
    if judged.is_disputed:
        yield DISPUTED
    if judged.rests_on_images:
        yield THESE_IMAGES


def _is_at_ceiling(row: Replicates, test_images: int | None) -> bool:
    num_images = average(row.ok, "test/images") or test_images
    if num_images is None or not row.ok:
        return False
    task = TASKS[row.row.cell.data.task]
    return task.is_at_ceiling(row.measure, fmean(row.scores.values()), round(num_images))
