import pytest

from harness.report.description import to_description
from harness.table import make_results


def test_a_description_is_the_table_and_where_the_rest_lies(small_plan, records) -> None:
    text = to_description(make_results(small_plan, records))
    assert text.startswith("**A small experiment**")
    assert "| Swin-T | " in text
    assert "| **worse** |" in text
    assert text.endswith("Figures, how to read it and where it comes from: artifact `small.html`.")


@pytest.mark.parametrize("room", [700, 300, 20])
def test_a_long_table_is_cut_to_the_room_there_is(small_plan, records, room) -> None:
    text = to_description(make_results(small_plan, records), max_length=room)
    assert len(text) <= room


def test_what_is_cut_off_is_counted(small_plan, records) -> None:
    results = make_results(small_plan, records)
    room = len(to_description(results)) - 1
    assert "1 further row, figures" in to_description(results, max_length=room)
