"""`harness ui`: opens the runs, or a search, in the browser."""

import argparse
import os
import sys
import webbrowser

from harness.cli.options import add_store, at_least_one, find_store
from harness.cli.verb import echo

HELP = "MLflow's web page on the store, or with --search Optuna's; reachable from this machine only"
EXAMPLE = "harness ui --port 5001"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to show, and the port."""
    parser.add_argument("experiment", nargs="?", help="whose runs are shown first; default: the one that was used last")
    parser.add_argument(
        "--search",
        nargs="?",
        const="",
        metavar="PATH|URL",
        help="optuna-dashboard instead, on the searches beside the store, on another journal file, or on a storage URL",
    )
    parser.add_argument("--port", type=at_least_one, metavar="N", help="default: the server's usual one, or a free one")
    add_store(parser)


def execute(options: argparse.Namespace) -> int:
    """Open the browser if there is a desktop, and serve until Ctrl-C."""
    from harness.commands.ui import find_mlflow_page, find_search_page, serve
    from harness.tracking.store import Store

    store = Store(find_store(options))
    page = (
        find_mlflow_page(store, options.experiment)
        if options.search is None
        else find_search_page(options.search or None, store)
    )
    echo(f"{page.shows}; starting ...", flush=True)
    serve(page, port=options.port, announce=_open_page)
    return 0


def _open_page(address: str) -> None:
    echo(f"open {address}  (Ctrl-C ends it)", flush=True)
    has_desktop = sys.platform == "darwin" or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    if sys.stdout.isatty() and has_desktop:  # a browser in a terminal would take the terminal
        webbrowser.open(address)
