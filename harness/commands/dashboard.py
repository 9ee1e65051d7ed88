"""The server of `harness ui --search`: optuna-dashboard, restricted to requests from its own pages.

optuna-dashboard answers requests for any host. Without this restriction, a web page whose domain name resolves to this
machine (DNS rebinding) could read and delete studies.
"""

import argparse
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIServer, make_server

from harness.search.storage import open_storage

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})

Application = Callable[..., Iterable[bytes]]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


def refuse_foreign(application: Application) -> Application:
    """Answer 403 to requests for another host than this machine, and to requests from pages of another origin."""

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if is_own(environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")):
            return application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"This page is for the machine that serves it: open it as http://127.0.0.1 or http://localhost.\n"]

    return guarded


def is_own(host: str, origin: str | None) -> bool:
    """Whether `Host` is this machine, and `Origin`, if the browser sends one, is the same address."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name in LOOPBACK_HOSTS and origin in (None, f"http://{host}")


def main() -> None:
    """Serve a storage until the process is ended."""
    from optuna_dashboard import wsgi

    parser = argparse.ArgumentParser()
    parser.add_argument("storage")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    application = refuse_foreign(wsgi(open_storage(options.storage)))
    with make_server(options.host, options.port, application, server_class=_Server) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
