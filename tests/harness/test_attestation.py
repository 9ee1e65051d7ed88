from dataclasses import replace

import pytest

from harness.attestation import ATTESTED, ATTESTED_CODE, UNATTESTED, Standing, attest, find_undecided, judge
from harness.record import Record, RunStatus
from harness.trace import FORMAT, TRACE, TRACED_SEED, Rehearsal

TODAY = ("new code", "data")
PLACE = {"torch": "2.14", "device": "a CPU", "kernels": "cpu"}
SAME, OTHER, THIRD = (f"{FORMAT}:{digit * 16}" for digit in "abc")

RECORD = Record(
    "cell",
    "Swin-T",
    seed=2,
    status=RunStatus.OK,
    metrics={"test/top1": 80.0},
    provenance={**PLACE, "code_digest": "old code", "data_digest": "data", TRACE: SAME, TRACED_SEED: "0"},
)


def make_rehearsal(digest: str, **changes: object) -> Rehearsal:
    """Of the record's cell by today's code, where the record was made."""
    return replace(Rehearsal("cell", 0, *TODAY, PLACE, digest=digest), **changes)


ELSEWHERE = make_rehearsal(SAME, environment={**PLACE, "torch": "2.9"})


@pytest.mark.parametrize(
    ("digests", "standing"),
    [
        pytest.param([], Standing.UNDECIDED, id="no rehearsal"),
        pytest.param([SAME], Standing.ATTESTED, id="an equal trace"),
        pytest.param([OTHER], Standing.UNDECIDED, id="one that differs"),
        pytest.param([OTHER, OTHER], Standing.STALE, id="two that agree and differ"),
        pytest.param([OTHER, THIRD], Standing.UNATTESTED, id="two that disagree"),
        pytest.param([OTHER, THIRD, SAME], Standing.ATTESTED, id="one of several is equal"),
        pytest.param(["", ""], Standing.STALE, id="today's code fails, twice"),
    ],
)
def test_older_code_stands_where_todays_computes_the_same(digests: list[str], standing: Standing) -> None:
    assert judge(RECORD, TODAY, map(make_rehearsal, digests))[0] == standing


def test_the_same_code_needs_no_rehearsal() -> None:
    assert judge(RECORD, ("old code", "data"), [])[0] == Standing.DONE


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"data_digest": "other images"}, id="other images"),
        pytest.param({TRACE: ""}, id="no trace"),
        pytest.param({TRACE: f"{FORMAT + 1}:{'a' * 16}"}, id="a trace of another format"),
    ],
)
def test_what_no_rehearsal_can_attest_is_stale(change: dict[str, str]) -> None:
    record = replace(RECORD, provenance={**RECORD.provenance, **change})
    assert judge(record, TODAY, [make_rehearsal(SAME)])[0] == Standing.STALE


@pytest.mark.parametrize("place", ["torch", "device", "kernels"])
def test_nothing_is_attested_in_another_environment_which_is_told(place: str) -> None:
    elsewhere = make_rehearsal(SAME, environment={**PLACE, place: "another"})
    assert judge(RECORD, TODAY, [elsewhere]) == (Standing.UNATTESTED, f"made with {place} {PLACE[place]}")


@pytest.mark.parametrize("change", [{"cell_id": "another"}, {"seed": 1}, {"code_digest": "old code"}])
def test_rehearsals_of_other_replicates_and_code_tell_nothing(change: dict[str, object]) -> None:
    assert judge(RECORD, TODAY, [make_rehearsal(SAME, **change)])[0] == Standing.UNDECIDED


def test_a_record_that_stands_has_todays_digest_and_says_why() -> None:
    (attested,) = attest([RECORD], {"cell": TODAY}, [make_rehearsal(SAME)])
    assert (attested.provenance["code_digest"], attested.provenance[ATTESTED]) == ("new code", "old code")
    (unattested,) = attest([RECORD], {"cell": TODAY}, [ELSEWHERE])
    assert unattested.provenance["code_digest"] == "new code"
    assert unattested.provenance[UNATTESTED] == "made with torch 2.14"
    for rehearsals in ([], [make_rehearsal(OTHER)] * 2):
        assert attest([RECORD], {"cell": TODAY}, rehearsals) == [RECORD]
    assert attest([RECORD], {}, [make_rehearsal(SAME)]) == [RECORD]


def test_a_cell_is_undecided_where_no_rehearsal_tells_and_no_run_of_today_stands() -> None:
    exported = replace(RECORD, end_time=5.0, provenance={**RECORD.provenance, ATTESTED_CODE: "middle code"})
    today = {"cell": TODAY}
    assert find_undecided([exported, RECORD], today, []) == {"cell": ("middle code", "data")}
    assert find_undecided([RECORD], today, [make_rehearsal(OTHER)] * 2) == {}
    assert find_undecided([RECORD], today, [make_rehearsal(SAME)]) == {}
    assert find_undecided([RECORD], {}, []) == {}
    newer = replace(RECORD, seed=0, provenance={**RECORD.provenance, "code_digest": "new code"})
    assert find_undecided([RECORD, newer], today, []) == {}
