"""Repairs the incomplete end of Optuna's journal file after a crash; reports other damage.

Each line of a journal is one operation. Optuna ignores an incomplete last line when it reads, but appends to this line
when it writes; afterwards it cannot read the file.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from harness.errors import StoreError

OPERATION_KEYS = frozenset({"op_code", "worker_id"})


def repair_journal(path: Path) -> int:
    """Remove an incomplete last line, under the lock of Optuna's writers; return the number of removed bytes.

    No complete operation is lost: a crash leaves a part of one operation, and the next call continues its trial. If the
    file does not exist, nothing happens.

    Raises:
        StoreError: a line before the last one is damaged; the file is not changed.
    """
    from optuna.storages.journal import JournalFileSymlinkLock
    from optuna.storages.journal._file import get_lock_file

    if not path.exists() or find_incomplete_end(path) is None:
        return 0
    with get_lock_file(JournalFileSymlinkLock(str(path))):
        start = find_incomplete_end(path)  # another process may have repaired it meanwhile
        if start is None:
            return 0
        with path.open("r+b") as file:
            removed = file.seek(0, 2) - start
            file.truncate(start)
        return removed


def find_incomplete_end(path: Path) -> int | None:
    """The position at which an incomplete last line begins; None if every line is complete.

    Raises:
        StoreError: a line before the last one is damaged.
    """
    with path.open("rb") as file:
        return _find_damage(path, file)


def _find_damage(path: Path, lines: BinaryIO | Iterable[bytes]) -> int | None:
    position, damaged = 0, None
    for number, line in enumerate(lines, start=1):
        if damaged is not None:
            raise StoreError(
                f"line {number - 1} of the journal {path} is damaged: it is no operation of Optuna's. Restore the file "
                "from a copy, or move it away: the search then starts again and reuses every run in the tracking store"
            )
        if not _is_operation(line):
            damaged = position
        position += len(line)
    return damaged


def _is_operation(line: bytes) -> bool:
    if not line.endswith(b"\n"):
        return False
    try:
        content = json.loads(line)
    except ValueError:
        return False
    return isinstance(content, dict) and content.keys() >= OPERATION_KEYS
