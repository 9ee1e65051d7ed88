"""Which failures of a call mean that the server is gone."""

import pytest
from requests.exceptions import ChunkedEncodingError, ConnectionError, HTTPError, ReadTimeout

from harness.tracking.patience import Patience, is_unreachable


@pytest.mark.parametrize("failure", [ConnectionError, ReadTimeout, ChunkedEncodingError], ids=lambda x: x.__name__)
def test_a_call_is_repeated_where_the_server_ends_before_or_within_its_answer(
    failure: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    failures = [failure("Connection broken"), failure("Connection broken")]

    def ask() -> str:
        if failures:
            raise failures.pop()
        return "answer"

    assert Patience("the store").call(ask) == "answer"


def test_an_answer_that_refuses_is_not_repeated() -> None:
    assert not is_unreachable(HTTPError("403"))
