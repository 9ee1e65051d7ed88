from harness.commands.inventory import describe_inventory
from harness.data import Description


def test_a_usable_dataset_is_described_with_its_place_and_its_digest() -> None:
    found = Description(
        "clothes", "/data/clothes", usable=True, state="complete", num_train=60_000, num_test=10_000,
        num_bytes=30_900_000, digest="d1935",
    )  # fmt: skip
    text = describe_inventory([found])
    for fact in ("clothes: complete", "/data/clothes", "60,000", "10,000", "30.9 MB", "d1935"):
        assert fact in text


def test_of_a_missing_dataset_only_what_is_missing_is_said() -> None:
    text = describe_inventory([Description("clothes", "", usable=False, state="nothing is there")])
    assert text == "clothes: nothing is there"
