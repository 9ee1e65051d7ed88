"""Which requests reach optuna-dashboard."""

from typing import Any

import pytest

from harness.commands.dashboard import is_own, refuse_foreign


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "LOCALHOST", "127.0.0.1"])
def test_this_machine_is_answered(host: str) -> None:
    assert is_own(host, None)
    assert is_own(host, f"http://{host}")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example", None),
        ("evil.example:8080", "http://evil.example:8080"),
        ("127.0.0.1.evil.example", None),
        ("localhost@evil.example", None),
        ("0.0.0.0:8080", None),
        ("[::1", None),
        ("", None),
        ("127.0.0.1:8080", "http://evil.example"),
        ("127.0.0.1:8080", "http://127.0.0.1:3000"),
        ("127.0.0.1:8080", "https://127.0.0.1:8080"),
        ("127.0.0.1:8080", "null"),
    ],
)
def test_foreign_hosts_and_origins_are_refused_before_the_application(host: str, origin: str | None) -> None:
    answers: list[str] = []

    def application(_environ: dict[str, Any], _start: Any) -> list[bytes]:
        raise AssertionError("the request has reached the application")

    environ = {"REQUEST_METHOD": "DELETE", "HTTP_HOST": host} | ({"HTTP_ORIGIN": origin} if origin is not None else {})
    body = refuse_foreign(application)(environ, lambda status, _headers: answers.append(status))
    assert answers == ["403 Forbidden"]
    assert b"localhost" in b"".join(body)
