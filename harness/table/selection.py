"""Selects the records of a row: one per seed, all of one version of code and data."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass

from harness.attestation import Digests, find_version, get_digests
from harness.environment import is_same_environment
from harness.measure import Measure
from harness.plan import Plan, PlannedRow
from harness.record import Record, RunStatus
from harness.tasks import find_measure


@dataclass(frozen=True)
class Runs:
    """The records of a row by replicate.

    The replicate is the seed of the run; replicate s of a placebo is its s-th seed. `is_stale`: code or data have
    changed since. `measure` is the measure that is compared.
    """

    records: Mapping[int, Record]
    measure: Measure
    is_stale: bool = False

    @property
    def ok(self) -> list[Record]:
        """The records that have a measurement, by replicate."""
        return [record for record in self.records.values() if record.status == RunStatus.OK]

    @property
    def scores(self) -> dict[int, float]:
        """The measure on the test set, by replicate."""
        return {
            replicate: record.metrics[self.measure.test]
            for replicate, record in self.records.items()
            if record.status == RunStatus.OK
        }

    @property
    def blocks(self) -> dict[Hashable, float]:
        """The test scores by block; runs of one block share replicate, images and `is_stale`."""
        return self.read_blocks(lambda record: record.metrics[self.measure.test])

    def read_blocks(self, read: Callable[[Record], float | None]) -> dict[Hashable, float]:
        """Another number of the runs by block; runs without it are left out."""
        return {
            (replicate, get_images(get_digests(record)[1]), self.is_stale): value
            for replicate, record in self.records.items()
            if record.status == RunStatus.OK and (value := read(record)) is not None
        }

    @property
    def versions(self) -> set[tuple[str, bool]]:
        """The digest of the images of its records, and `is_stale`."""
        return {(get_images(get_digests(record)[1]), self.is_stale) for record in self.records.values()}


@dataclass(frozen=True, kw_only=True)
class Replicates(Runs):
    """The runs of a row of the plan; `planned` has all replicates, `measure` is the deciding one."""

    row: PlannedRow
    planned: tuple[int, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every planned replicate has a result; a bad outcome is a result."""
        return all(each in self.records and self.records[each].status.is_result for each in self.planned)


def select_replicates(plan: Plan, records: Iterable[Record], current: Mapping[str, Digests]) -> list[Replicates]:
    """The `Replicates` of every planned row, in the order of the plan."""
    known, measure = list(records), find_measure(plan.spec)
    planned = {row.name: tuple(run.replicate for run in plan.runs if run.row == row) for row in plan.rows}
    return [_select(row, planned[row.name], known, current, measure) for row in plan.rows]


def is_comparable(row: Runs, other: Runs) -> bool:
    """Whether two rows have the same images, the same code, and the same environment in paired replicates."""
    return row.versions == other.versions and len(row.versions) <= 1 and is_paired_in_environments(row, other)


def is_paired_in_environments(row: Runs, other: Runs) -> bool:
    """Whether both runs of each common replicate have the same environment."""
    shared = row.records.keys() & other.records.keys()
    return all(is_same_environment(row.records[each].provenance, other.records[each].provenance) for each in shared)


def get_images(data_digest: str) -> str:
    """The digest of the images, without that of label maps, which `harness.data.data_digest` appends."""
    return data_digest.partition("+")[0]


def is_thinned(*rows: Runs) -> bool:
    """Whether a bad outcome has removed replicates; the remaining ones are not a random sample."""
    return any(record.status.is_bad for row in rows for record in row.records.values())


def _select(
    row: PlannedRow,
    planned: tuple[int, ...],
    records: list[Record],
    current: Mapping[str, Digests],
    measure: Measure,
) -> Replicates:
    """The records of a row: results with the present digests, or else with the digests of the newest result."""
    seeds = {row.first_seed + replicate for replicate in planned}
    own = [record for record in records if record.cell_id == row.cell.id and record.seed in seeds]
    mine = [record for record in own if not record.is_untested]
    if not mine:
        return Replicates({}, measure, row=row, planned=planned)
    results = [record for record in mine if record.status.is_result] or mine
    newest = find_version(max(results, key=lambda record: record.end_time))
    today = current.get(row.cell.id, newest)
    chosen = today if any(get_digests(record) == today for record in results) else newest
    group = [record for record in mine if chosen in (get_digests(record), find_version(record))]
    best = {record.seed - row.first_seed: record for record in sorted(group, key=_rank)}
    chosen_records = {replicate: best[replicate] for replicate in planned if replicate in best}
    return Replicates(chosen_records, measure, is_stale=chosen != today, row=row, planned=planned)


def _rank(record: Record) -> tuple[bool, float]:
    """The sorting key of a record: results after bugs and interruptions, then by time; the last one is used."""
    return record.status.is_result, record.end_time
