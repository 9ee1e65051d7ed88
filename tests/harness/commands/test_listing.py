from harness.commands.listing import SECTIONS, describe_listing, make_listing
from harness.reading import list_experiments
from paradigms.facts import NORMALIZATIONS
from paradigms.presets import PRESETS


def test_everything_there_is_is_listed_within_a_hundred_columns() -> None:
    listing = make_listing(SECTIONS, data_dir=None)
    assert [entry["experiment"] for entry in listing["experiments"]] == list(list_experiments())
    table1 = next(entry for entry in listing["experiments"] if entry["experiment"] == "table1")
    assert (table1["rows"], table1["seeds"], table1["recipe"]) == (9, 7, "laptop")
    assert {entry["preset"] for entry in listing["presets"]} == set(PRESETS)
    rooms = {entry["part"]: entry["levels"] for entry in listing["operators"]}
    assert rooms["normalization"] == list(NORMALIZATIONS)
    assert {"data": "fashion_mnist", "usable": True}.items() <= listing["data"][0].items()
    lines = describe_listing(listing).splitlines()
    assert max(map(len, lines)) <= 100
    assert "elsa" in {line.split()[0] for line in lines if line}


def test_experiments_are_sorted_as_people_count() -> None:
    names = list(list_experiments())
    assert names.index("table2") < names.index("table9") < names.index("table11")
