import pytest

from harness.credentials import hide_credentials, join_command, split_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:secret@host:5000/path", "http://me:***@host:5000/path"),
        ("https://:secret@host", "https://:***@host"),
        ("postgresql+psycopg2://me:se/cr@et@host/db", "postgresql+psycopg2://me:***@host/db"),
        ("https://dapi0123@host", "https://***@host"),
        ("mysql://host/db?user=me&password=secret&ssl=1", "mysql://host/db?user=me&password=***&ssl=1"),
        ("two: http://a:secret@b, http://c:secret@d", "two: http://a:***@b, http://c:***@d"),
        ("http://host:5000/path", "http://host:5000/path"),
        ("mail me@host about sqlite:///runs/mlflow.db", "mail me@host about sqlite:///runs/mlflow.db"),
    ],
)
def test_no_password_of_an_address_is_shown(text: str, shown: str) -> None:
    assert hide_credentials(text) == shown


def test_no_password_of_a_command_is_shown_whatever_is_in_it() -> None:
    shown = join_command(["harness", "run", "my table.yaml", "--tracking-uri=postgresql://me:a 'b\" c@host/db"])
    assert shown == "harness run 'my table.yaml' '--tracking-uri=postgresql://me:***@host/db'"


def test_a_server_is_asked_by_its_name_and_told_the_password_apart() -> None:
    assert split_credentials("http://me:a%40b@host:5000/x") == (
        "http://host:5000/x",
        {"Authorization": "Basic bWU6YUBi"},
    )
    assert split_credentials("http://host:5000/x") == ("http://host:5000/x", {})
