"""Decides whether a record of older code still stands: by what code computes, not by its text.

Code that differs from today's is followed by a rehearsal of the cell. Where it computes, bit for bit, what the
rehearsal of the run's own code computed in the same environment, the record stands.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

from harness.environment import STEP
from harness.record import Record
from harness.trace import FORMAT, PLACE, TRACE, TRACED_SEED, Rehearsal, find_place

Digests = tuple[str, str]
"""Of the code that a cell reaches and of its data."""

ATTESTED = "attested"
"""What the provenance of an attested record has: the digest of the code that trained it."""

ATTESTED_CODE = "attested_code"
"""What the provenance of an exported record has: the digest of code under which a rehearsal has attested it."""

UNATTESTED = "unattested"
"""What the provenance of a record has that stands although nothing can attest it: the reason."""


class Standing(StrEnum):
    """Where a planned run stands under today's code and data, the best first.

    `failed` has a bug of today's code; `resumable` has no result, and a checkpoint of today's code.
    """

    DONE = "done"
    ATTESTED = "attested"
    UNATTESTED = "unattested"
    UNDECIDED = "undecided"
    STALE = "stale"
    FAILED = "failed"
    RESUMABLE = "resumable"
    TO_DO = "to do"

    @property
    def has_result(self) -> bool:
        """Whether a record stands: of today's code, of code that computes the same, or where nothing can tell."""
        return self in (Standing.DONE, Standing.ATTESTED, Standing.UNATTESTED)


def get_digests(record: Record) -> Digests:
    """The version of code and data that a record was made with."""
    return record.provenance.get("code_digest", ""), record.provenance.get("data_digest", "")


def find_version(record: Record) -> Digests:
    """The last version of code that is known to compute a record, and its data: runs of one version are averaged."""
    code, data = get_digests(record)
    return record.provenance.get(ATTESTED_CODE, code), data


def judge(record: Record, today: Digests, rehearsals: Iterable[Rehearsal]) -> tuple[Standing, str]:
    """Where a record stands, and why where nothing can attest it.

    `undecided` means that another rehearsal of the replicate that its provenance names would tell. A trace that differs
    decides once two rehearsals of today's code agree about it: where they differ, the environment is not deterministic.
    """
    code, data = get_digests(record)
    if (code, data) == today:
        return Standing.DONE, ""
    if data == today[1] and record.provenance.get(ATTESTED_CODE) == today[0]:
        return Standing.ATTESTED, ""
    if data != today[1] or not record.provenance.get(TRACE, "").startswith(f"{FORMAT}:"):
        return Standing.STALE, ""
    made = [rehearsal for rehearsal in rehearsals if _is_of(rehearsal, record, today)]
    here = [rehearsal for rehearsal in made if find_place(record.provenance) == rehearsal.environment]
    return _compare(record, {rehearsal.digest for rehearsal in here}, made, count=len(here))


def _compare(record: Record, traces: set[str], made: Sequence[Rehearsal], *, count: int) -> tuple[Standing, str]:
    """`traces` are those of `count` rehearsals in the record's own environment, of all that were `made`."""
    if record.provenance[TRACE] in traces:
        return Standing.ATTESTED, ""
    if len(traces) > 1:
        return Standing.UNATTESTED, "rehearsals differ in its environment, which is not deterministic"
    if made and not count:
        return Standing.UNATTESTED, _describe_environment(record.provenance, made[0].environment)
    return (Standing.STALE if count > 1 else Standing.UNDECIDED), ""


def attest(records: Iterable[Record], today: Mapping[str, Digests], rehearsals: Iterable[Rehearsal]) -> list[Record]:
    """The records as they stand today: those that stand have today's digests, and say so in their provenance."""
    known = list(rehearsals)
    return [_attest(record, today[record.cell_id], known) if record.cell_id in today else record for record in records]


def find_undecided(
    records: Iterable[Record], today: Mapping[str, Digests], rehearsals: Iterable[Rehearsal]
) -> dict[str, Digests]:
    """The cells of which no record stands and no rehearsal tells, with the version of the newest record."""
    known, versions, decided = list(rehearsals), dict[str, Digests](), set[str]()
    for record in sorted(records, key=lambda record: record.end_time):
        if record.status.is_result and record.cell_id in today:
            standing, _ = judge(record, today[record.cell_id], known)
            if standing.has_result:
                decided.add(record.cell_id)
            if standing == Standing.UNDECIDED:
                versions[record.cell_id] = find_version(record)
    return {cell_id: version for cell_id, version in versions.items() if cell_id not in decided}


def _attest(record: Record, today: Digests, rehearsals: list[Rehearsal]) -> Record:
    standing, reason = judge(record, today, rehearsals)
    if standing not in (Standing.ATTESTED, Standing.UNATTESTED):
        return record
    mark = {ATTESTED: get_digests(record)[0]} if standing == Standing.ATTESTED else {UNATTESTED: reason}
    return replace(record, provenance={**record.provenance, "code_digest": today[0], **mark})


def _is_of(rehearsal: Rehearsal, record: Record, today: Digests) -> bool:
    """Whether it was made of a record's replicate by today's code."""
    replicate = record.cell_id, int(record.provenance[TRACED_SEED])
    versions = rehearsal.code_digest, rehearsal.data_digest
    return (rehearsal.cell_id, rehearsal.seed) == replicate and versions == today


def _describe_environment(made: Mapping[str, str], today: Mapping[str, str]) -> str:
    """The entries of a record's environment that differ from today's."""
    made, today = {**STEP, **made}, {**STEP, **today}
    return "made with " + ", ".join(
        f"{name} {made.get(name, 'unknown')}" for name in PLACE if made.get(name) != today.get(name)
    )
