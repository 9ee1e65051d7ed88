"""Executes a plan: trains what is missing or stale, survives every failure and writes the table."""

import os
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from harness.attestation import Digests, Standing, attest, find_undecided
from harness.confounds import check_confounds
from harness.data import describe_data
from harness.engines.engine import Engine
from harness.errors import DataError, SpecError, StoreError
from harness.execution.adoption import adopt_runs
from harness.execution.events import Adopted, Event, Looked, Planned, Rehearsed, Rehearsing, TableWritten
from harness.execution.invocation import Invocation
from harness.execution.ledger import (
    Entry,
    check_plan,
    find_digests,
    find_rehearsals,
    list_missing,
    read_ledger,
    select_runs,
)
from harness.execution.rehearsals import (
    Rehearser,
    find_stored,
    forecast,
    list_failed,
    list_undecided,
    list_unrehearsed,
    order_runs,
)
from harness.execution.setup import Setup
from harness.execution.source import check_fit, check_sources
from harness.plan import Plan, PlannedRun, select_rows, select_seeds
from harness.provenance import collect
from harness.record import Record, RunStatus
from harness.report.description import to_description
from harness.report.files import find_folder, find_records
from harness.spec import DataSpec
from harness.table.image_noise import ReadPredictions
from harness.table.looks import Course, follow_looks
from harness.table.protocol import PROTOCOL, to_protocol
from harness.table.results import Results, make_results
from harness.table.selection import select_replicates
from harness.tasks import find_measure
from harness.trace import is_short
from harness.tracking import LiveRun, Tracker
from harness.tracking.record_files import Arrays

PRELOAD = (
    "harness.execution.rehearse",
    "harness.data.memory",
    "harness.data.streaming",
    "torch._dynamo",
)
"""All code that a worker executes, so that an edit while runs go on changes none of them; torch imports `_dynamo` when
the first optimizer is built."""


ENDINGS = (".csv", ".md", ".tex", ".html")
REHEARSALS_TO_DECIDE = 2
"""By today's code: a trace that differs from a record's tells nothing until a second one agrees with it."""

LONGEST_NAME = 255
"""Bytes, on every file system that is in use."""


@dataclass(frozen=True)
class RunOptions:
    """How to run a plan.

    Attributes:
        results: the folder that tables go to.
        data_dir: of datasets that do not ship with the package.
        keep_stale: leaves results of older code or data as they are.
        retrain: trains again what stands although nothing can attest it.
        retry_failed: trains again what has failed or diverged under today's code.
        command: what the user typed.
        rows: the rows that are trained; empty: all. The table has all of them.
        seeds: the replicates that are trained, first and last; None: all. The table has all of them.
    """

    results: Path
    data_dir: Path | None = None
    keep_stale: bool = False
    command: str = "harness run"
    rows: tuple[str, ...] = ()
    retrain: bool = False
    retry_failed: bool = False
    seeds: tuple[int, int] | None = None


def run_plan(plan: Plan, *, tracker: Tracker, engine: Engine, options: RunOptions) -> Generator[Event, None, None]:
    """Yield events as they happen; closing the iterator ends what runs as `interrupted`.

    Raises:
        DataError: the dataset is missing or cannot give what the recipe asks for.
        SpecError: weights that a row starts from do not fit it, a row differs from the baseline in more than it
            states, or a part is selected of a table whose rows get seeds until they are resolved.
        WeightsError: a file of such weights cannot be read.
        StoreError: the store, or the folder of the tables, cannot be used, or has no run that a row starts from.
    """
    spec, data_dir = plan.spec, options.data_dir
    if spec.until_resolved is not None and (options.rows or options.seeds):
        raise SpecError("seeds until resolved are a rule for a whole table: leave out the selection of rows and seeds")
    digests = _find_checked_digests(plan, data_dir)
    check_results(find_folder(spec, options.results), spec.name)
    tracker.prepare(spec.name, measure=find_measure(spec))
    closed = tracker.close_dead_runs()
    yield from _adopt(plan, tracker, options.results)
    chosen = select_seeds(select_rows(plan, options.rows), options.seeds)
    entries = read_ledger(chosen, tracker, digests)
    elsewhere = tuple(run for run in tracker.running_elsewhere() if run.cell_id in digests)
    if _select_to_do(entries, options):
        check_sources(_select_to_do(entries, options), tracker)
        check_fit(plan)
        check_files(spec.recipe.data, data_dir)
    provenance = {**collect(threads=engine.threads), PROTOCOL: to_protocol(spec)}
    setup = Setup(spec, tracker, engine, provenance, digests, data_dir)
    rehearser, is_to_do = Rehearser(setup), partial(_is_to_do, options=options)
    with closing(Invocation(setup, options.command, rehearser, is_to_do=is_to_do)) as invocation:
        if not options.keep_stale:
            entries = yield from _decide(rehearser, chosen, entries)
        yield from _train(plan, entries, invocation, options, found=(len(closed), elsewhere))
        while spec.until_resolved is not None:
            trained = read_ledger(chosen, tracker, digests)
            course, before = (_follow(plan, each, setup, options) for each in (trained, entries))
            if course.last is not None:
                yield Looked(course)
            if course.seeds == before.seeds:
                break
            entries = trained
            yield from _train(plan, entries, invocation, options)
        try:
            check_confounds(plan, rehearser.known)
            written = write_results(plan, tracker, digests, options.results)
        except (StoreError, SpecError):
            invocation.finish((), "")  # every run has ended and is stored
            raise
        invocation.finish(written.files, to_description(written.results))
        yield written


def _train(
    plan: Plan,
    entries: tuple[Entry, ...],
    invocation: Invocation,
    options: RunOptions,
    *,
    found: tuple[int, tuple[LiveRun, ...]] = (0, ()),
) -> Generator[Event, None, None]:
    """Train what is to do of a plan; where rows get seeds until they are resolved, what the next look needs.

    `found` are the runs that were closed, and those that other processes have open.
    """
    rehearser, setup = invocation.rehearser, invocation.setup
    if plan.spec.until_resolved is not None:
        course = _follow(plan, entries, setup, options)
        entries = tuple(entry for entry in entries if course.needs(entry.run))
    to_do = _select_to_do(entries, options)
    yield Planned(entries, to_do, *found)
    invocation.copy(entry for entry in entries if not _is_to_do(entry, options))
    yield from _rehearse(rehearser, plan, [run for run in to_do if not is_short(run.row.cell)])
    failed = list_failed(to_do, rehearser.known)
    able = order_runs(
        [run for run in to_do if run not in failed], rehearser.known, entries, baseline=plan.spec.baseline
    )
    yield from forecast(able, rehearser.known, entries, workers=setup.engine.workers)
    yield from invocation.refuse(failed)
    yield from invocation.train(able)


def _follow(plan: Plan, entries: Iterable[Entry], setup: Setup, options: RunOptions) -> Course:
    """The looks that the results which stand allow."""
    kept = [entry for entry in entries if not (_is_to_do(entry, options) or entry.standing == Standing.FAILED)]
    standing = [entry.record for entry in kept if entry.record is not None]
    rehearsals = find_rehearsals(standing, setup.digests, setup.tracker)
    return follow_looks(plan, select_replicates(plan, attest(standing, setup.digests, rehearsals), setup.digests))


def rehearse_plan(
    plan: Plan,
    *,
    tracker: Tracker,
    engine: Engine,
    results: Path,
    data_dir: Path | None = None,
    rows: Sequence[str] = (),
) -> Generator[Event, None, None]:
    """Rehearse the cells that have no rehearsal by today's code in this environment; train nothing.

    The last event is `Rehearsed`; before it comes `Forecast` if every run that `run_plan` would train has a rehearsal.

    Args:
        plan: of an experiment.
        tracker: stores the rehearsals.
        engine: executes them.
        results: the folder of the tables, whose record file is imported.
        data_dir: of datasets that do not ship with the package.
        rows: the rows that are rehearsed; empty: all.

    Raises:
        DataError, SpecError, WeightsError, StoreError: as `run_plan`.
    """
    digests = _find_checked_digests(plan, data_dir)
    check_fit(plan)
    check_files(plan.spec.recipe.data, data_dir)
    tracker.prepare(plan.spec.name, measure=find_measure(plan.spec))
    yield from _adopt(plan, tracker, results)
    setup = Setup(plan.spec, tracker, engine, collect(threads=engine.threads), digests, data_dir)
    chosen, rehearser = select_rows(plan, rows), Rehearser(setup)
    check_sources(chosen.runs, tracker)
    entries = yield from _decide(rehearser, chosen, read_ledger(chosen, tracker, digests))
    yield from _rehearse(rehearser, plan, chosen.runs)
    to_do = list_missing(entries)
    failed = list_failed(to_do, rehearser.known)
    able = [run for run in to_do if run not in failed]
    yield from forecast(able, rehearser.known, entries, workers=engine.workers)
    yield Rehearsed(entries, rehearser.known)


def _adopt(plan: Plan, tracker: Tracker, results: Path) -> Iterator[Event]:
    adopted = adopt_runs(plan, tracker, results)
    if adopted:
        yield Adopted(find_records(plan.spec, results), adopted)


def _find_checked_digests(plan: Plan, data_dir: Path | None) -> dict[str, Digests]:
    check_plan(plan, data_dir=data_dir)
    return find_digests(plan, data_dir=data_dir)


def _decide(rehearser: Rehearser, plan: Plan, entries: tuple[Entry, ...]) -> Generator[Event, None, tuple[Entry, ...]]:
    """Rehearse until the plan's results of older code are attested or stale; the entries as they are then."""
    setup = rehearser.setup
    for _ in range(REHEARSALS_TO_DECIDE):
        undecided = list_undecided(entries)
        if undecided:
            yield Rehearsing(undecided, decides=True)
            yield from rehearser.rehearse(undecided)
            entries = read_ledger(plan, setup.tracker, setup.digests)
    return entries


def _rehearse(rehearser: Rehearser, plan: Plan, runs: Iterable[PlannedRun]) -> Generator[Event, None, None]:
    """Rehearse the cells of `runs` that have no rehearsal yet, and compare all that is known of the plan's rows.

    Raises:
        SpecError: a row differs from the baseline in more than it states.
    """
    setup = rehearser.setup
    stored = find_stored(plan, setup.tracker, setup.digests, setup.provenance)
    rehearser.known |= {**stored, **rehearser.known}
    unrehearsed = list_unrehearsed(runs, rehearser.known)
    if unrehearsed:
        yield Rehearsing(unrehearsed, decides=False)
        yield from rehearser.rehearse(unrehearsed)
    check_confounds(plan, rehearser.known)


def check_results(folder: Path, name: str) -> None:
    """Find out before the first run, not after the last, that `folder` takes the files called `name`; creates nothing.

    Raises:
        StoreError: it cannot be written, a file or folder is in the way, or a name is too long.
    """
    for part in (*folder.parts, f".{name}_effects.csv.{'x' * 8}"):  # the longest: a draft, which is renamed
        if len(os.fsencode(part)) > LONGEST_NAME:
            raise StoreError(f"tables cannot be written to {folder}: the name {part[:60]}... is too long for a file")
    try:
        existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        tempfile.TemporaryFile(dir=existing).close()
        in_the_way = [path for ending in ENDINGS if (path := folder / f"{name}{ending}").is_dir()]
    except OSError as error:
        raise StoreError(f"tables cannot be written to {folder}: {error.strerror}") from None
    if in_the_way:
        raise StoreError(f"tables cannot be written to {folder}: {in_the_way[0].name} is a folder")


def _select_to_do(entries: Iterable[Entry], options: RunOptions) -> tuple[PlannedRun, ...]:
    """The runs to train."""
    return select_runs(entry for entry in entries if _is_to_do(entry, options))


def _is_to_do(entry: Entry, options: RunOptions) -> bool:
    if entry.standing == Standing.UNATTESTED:
        return options.retrain
    has_diverged = entry.record is not None and entry.record.status == RunStatus.DIVERGED
    if entry.standing == Standing.FAILED or (entry.standing.has_result and has_diverged):
        return options.retry_failed
    is_older = entry.standing in (Standing.UNDECIDED, Standing.STALE)
    return not entry.standing.has_result and not (is_older and options.keep_stale)


def check_files(data: DataSpec, data_dir: Path | None) -> None:
    """A damaged file is found before the first run, not by every run."""
    found = describe_data(data.name, data_dir, spec=data)
    if not found.usable:
        raise DataError(found.state)


def read_results(plan: Plan, tracker: Tracker, digests: Mapping[str, Digests], results: Path) -> Results:
    """The results of a plan from the store and the record file beside its table; writes no table.

    `digests` are today's, empty where not known. Rows of older code, of which no rehearsal tells whether it computes
    the same, are shown as when that code was today's; `Results.undecided` names them.

    Raises:
        StoreError: the store has no run of this plan, or the record file is damaged.
    """
    spec = plan.spec
    adopt_runs(plan, tracker, results)
    records = tracker.read_records(spec.name, [row.cell.id for row in plan.rows], curves=[find_measure(spec).val])
    made = judge_records(plan, tracker, records, digests, partial(_read_predictions, tracker))
    if not any(row.records for row in made.replicates.values()):
        raise StoreError(f"no run of {spec.name} under recipe {spec.recipe.name} is stored; `harness run` makes them")
    return made


def judge_records(
    plan: Plan,
    tracker: Tracker,
    records: Sequence[Record],
    digests: Mapping[str, Digests],
    read_predictions: ReadPredictions | None = None,
) -> Results:
    """The results of records as they stand today, as `read_results` has them."""
    rehearsals = find_rehearsals(records, digests, tracker)
    undecided = find_undecided(records, digests, rehearsals)
    current = {**digests, **undecided}
    attested = attest(records, current, rehearsals)
    made = make_results(plan, attested, current=current, read_predictions=read_predictions)
    return replace(made, undecided=tuple(row.name for row in plan.rows if row.cell.id in undecided))


def _read_predictions(tracker: Tracker, record: Record) -> Arrays:
    """Of a stored record; a damaged file costs the table what it says of test images, and nothing else."""
    assert record.run_id is not None
    try:
        return tracker.read_predictions(record.run_id)
    except StoreError:
        return {}


def write_results(plan: Plan, tracker: Tracker, digests: Mapping[str, Digests], results: Path) -> TableWritten:
    """Write the table and the figures of `read_results`.

    Raises:
        StoreError: as `read_results` (an empty table must not replace one that was made elsewhere), or the files cannot
            be written.
    """
    made = read_results(plan, tracker, digests, results)
    from harness.report.write import write_report  # not before: the memory of a run's process is measured

    with guarded(find_folder(plan.spec, results)):
        files = write_report(made, results)
    return TableWritten(made, files)


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into one `StoreError` that says where the results are."""
    try:
        yield
    except OSError as error:
        advice = (
            "all runs are stored: run the same command again, also with another --results, to write it without training"
        )
        raise StoreError(f"the table cannot be written to {folder}: {error.strerror}; {advice}") from None
