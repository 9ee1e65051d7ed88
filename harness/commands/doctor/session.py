"""Runs all checks in order and formats their findings."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tabulate import tabulate

from harness.commands.doctor.finding import Finding, Level
from harness.commands.doctor.machine import check_disk, check_machine
from harness.commands.doctor.software import check_software
from harness.commands.doctor.storage import check_data, check_searches, check_store
from harness.errors import StoreError
from harness.project import find_root
from harness.provenance import ROOT
from harness.text import count_noun
from harness.tracking.store import Store

_WIDTH = 72
"""Width of a finding, so that a line has at most 100 columns."""


def examine(tracking_uri: str, *, data_dir: Path | None = None) -> Iterator[Finding]:
    """Run all checks and yield their findings; a problem does not prevent later checks."""
    yield from check_software(ROOT)
    yield from check_machine()
    yield from check_store(tracking_uri)
    yield from check_searches(tracking_uri)
    yield from check_disk(_list_folders(tracking_uri))
    yield from check_data(data_dir)


def _list_folders(tracking_uri: str) -> list[Path]:
    folders = [find_root() / "results"]
    with suppress(StoreError):  # reported by `check_store`
        database = Store(tracking_uri).database
        folders += [] if database is None else [database.parent]
    return folders


def describe_findings(findings: Sequence[Finding]) -> str:
    """One line per finding, with the advice below it, as text for a terminal."""
    texts = [f"{found.found}\n→ {found.advice}" if found.advice else found.found for found in findings]
    rows = [[found.level.value, found.topic, text] for found, text in zip(findings, texts, strict=True)]
    counts = Counter(found.level for found in findings)
    counted = [count_noun(counts[level], level.value) for level in (Level.PROBLEM, Level.WARNING) if counts[level]]
    summary = ", ".join(counted) if counted else "all is well"
    table = tabulate(rows, tablefmt="plain", disable_numparse=True, maxcolwidths=[None, None, _WIDTH])
    return f"{table}\n\n{summary}"
