import pytest

from harness.division import Division, divide_batch, list_positions


@pytest.mark.parametrize("num_parts", [1, 2, 3, 5])
@pytest.mark.parametrize("num_images", [2, 10, 11, 128])
def test_parts_are_disjoint_complete_and_of_almost_equal_size(num_images: int, num_parts: int) -> None:
    parts = [list_positions(num_images, part=part, num_parts=num_parts) for part in range(num_parts)]
    assert sorted(position for part in parts for position in part) == list(range(num_images))
    assert max(map(len, parts)) - min(map(len, parts)) <= 2


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_part_in_reverse_has_the_counterpart_of_each_image_at_its_position(part: int) -> None:
    """So that mixup, cutmix and MixToken mix the same pairs in the part as in the whole batch."""
    positions = list_positions(14, part=part, num_parts=3)
    assert [13 - position for position in positions] == positions[::-1]


def test_a_single_part_is_the_whole_batch_in_its_order() -> None:
    assert list_positions(7, part=0, num_parts=1) == list(range(7))


@pytest.mark.parametrize(
    ("processes", "num_gpus", "division"),
    [
        pytest.param(None, 8, Division(8, 1), id="as many GPUs as needed"),
        pytest.param(None, 16, Division(8, 1), id="more GPUs than needed"),
        pytest.param(None, 4, Division(4, 2), id="fewer GPUs"),
        pytest.param(None, 3, Division(3, 3), id="a number that does not divide"),
        pytest.param(None, 1, Division(1, 8), id="one GPU"),
        pytest.param(None, 0, Division(1, 8), id="a CPU"),
        pytest.param(2, 0, Division(2, 4), id="as many processes as stated"),
        pytest.param(16, 16, Division(16, 1), id="more processes than needed"),
    ],
)
def test_a_batch_of_1024_with_128_images_on_a_device(processes: int | None, num_gpus: int, division: Division) -> None:
    assert divide_batch(1024, device_batch_size=128, processes=processes, num_gpus=num_gpus) == division


def test_without_a_device_batch_size_one_process_computes_the_batch_at_once() -> None:
    assert divide_batch(1024, device_batch_size=None, num_gpus=8) == Division(1, 1)


def test_a_micro_batch_has_at_least_one_pair() -> None:
    assert divide_batch(6, device_batch_size=1, num_gpus=2) == Division(2, 1)
    assert divide_batch(6, device_batch_size=1) == Division(1, 3)
    with pytest.raises(ValueError, match="processes must not exceed half"):
        divide_batch(6, device_batch_size=None, processes=4)
