import pytest

from harness.engines.capacity import Capacity
from harness.engines.engine import Job, Resources
from harness.errors import EngineError


def do_nothing(_report: object) -> None: ...


def make_job(name: str, **resources: float) -> Job:
    return Job(name, do_nothing, resources=Resources(**resources))  # type: ignore[arg-type]


def take(capacity: Capacity, *jobs: Job) -> list[tuple[str, ...] | None]:
    """The devices of each job that gets a place at once."""
    places = [capacity.take(job) for job in jobs]
    return [None if place is None else place.devices for place in places]


def test_jobs_get_places_as_long_as_there_are_cores() -> None:
    capacity = Capacity(cpus=3)
    assert take(capacity, make_job("a", processes=2), make_job("b", processes=2), make_job("c")) == [(), None, ()]
    capacity.give_back("a")
    assert take(capacity, make_job("b", processes=2)) == [()]


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (1.0, [("0",), ("2",), None, None]),
        (0.5, [("0",), ("2",), ("0",), ("2",)]),
        (0.4, [("0",), ("2",), ("0",), ("2",)]),
        (0.6, [("0",), ("2",), None, None]),
    ],
)
def test_shares_of_gpus_are_spread_and_never_exceed_one(
    fraction: float, expected: list[tuple[str, ...] | None]
) -> None:
    capacity = Capacity(cpus=9, gpus=("0", "2"), share=Resources(cpus=1, gpus=fraction))
    assert take(capacity, *(make_job(name) for name in "abcd")) == expected


def test_three_thirds_of_a_gpu_are_a_whole_one() -> None:
    capacity = Capacity(cpus=9, gpus=("0",), share=Resources(cpus=1, gpus=1 / 3))
    assert take(capacity, *(make_job(name) for name in "abcd")) == [("0",), ("0",), ("0",), None]


def test_processes_of_one_job_have_different_gpus() -> None:
    capacity = Capacity(cpus=9, gpus=("0", "1", "2"), share=Resources(cpus=1, gpus=0.5))
    assert take(capacity, make_job("a", processes=2), make_job("b", processes=2)) == [("0", "1"), ("2", "0")]


def test_memory_is_counted_for_each_process() -> None:
    capacity = Capacity(cpus=9, memory_gb=10.0, share=Resources(cpus=1, memory_gb=3.0))
    assert take(capacity, make_job("a", processes=2), make_job("b", processes=2), make_job("c")) == [(), None, ()]


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"cpus": 5}, "a run needs 5 cores on one host, but there are 4 cores, 1 GPUs"),
        ({"gpus": 2}, "a run needs 1 core, 2 GPUs on one host"),
        ({"memory_gb": 9}, "a run needs 1 core, 9 GB of memory on one host"),
    ],
)
def test_a_job_that_never_fits_is_an_error(resources: dict[str, float], message: str) -> None:
    capacity = Capacity(cpus=4, gpus=("0",), memory_gb=8.0)
    with pytest.raises(EngineError, match=message):
        capacity.take(make_job("large", **resources))
