"""Made-up records of the small experiment."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.plan import Plan
from harness.record import EpochMetrics, Record, RunStatus

PROVENANCE = {
    "code_digest": "c0de",
    "data_digest": "da7a",
    "commit": "8c1f0e2",
    "dirty": "false",
    "python": "3.11.7",
    "torch": "2.14.1",
    "device": "AMD EPYC",
    "threads": "1",
    "kernels": "cpu (avx512)",
}

TOP1 = {
    "Swin-T": (84.0, 84.4, 84.1),
    "Net1": (83.0, 83.5, 83.1),
    "Net7-N": (84.3, 84.2, 84.6),
    "Linear classifier": (80.0, 80.0, 80.1),
    "One hidden layer": (81.0, 81.2, 81.1),
}

MakeRecord = Callable[..., Record]


@pytest.fixture
def make_record(small_plan: Plan) -> MakeRecord:
    """A record of a row and a seed; `digests` are of code and data."""
    rows = {row.name: row for row in small_plan.rows}

    def make(
        name: str,
        seed: int = 0,
        status: RunStatus = RunStatus.OK,
        *,
        digests: tuple[str, str] = ("c0de", "da7a"),
        **changes: object,
    ) -> Record:
        top1 = TOP1[name][seed]
        record = Record(
            cell_id=rows[name].cell.id,
            row=name,
            seed=seed,
            status=status,
            metrics={
                "test/top1": top1,
                "test/top5": 99.0,
                "val/top1": top1 + 0.5,
                "train/images_per_second": 450.0,
                "params": 226_100.0 if name == "Net7-N" else 137_000.0,
                "macs": 3_900_000.0,
                "seconds": 60.0,
            },
            curve=tuple(EpochMetrics(epoch, 10 * epoch, {"val/top1": top1 - 9 * 0.1**epoch}) for epoch in range(1, 9)),
            provenance={**PROVENANCE, "code_digest": digests[0], "data_digest": digests[1]},
            end_time=1_795_000_000.0 + seed,
        )
        return replace(record, **changes)

    return make


@pytest.fixture
def records(make_record: MakeRecord) -> list[Record]:
    """All fifteen runs, all good."""
    return [make_record(name, seed) for seed in range(3) for name in TOP1]
