"""Temporary folders, created when they are needed."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_folder(prefix: str = "harness-") -> Iterator[Path]:
    """A new folder, deleted at the end; its parent is made again where a cleaner of temporary files has removed it."""
    parent = Path(tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
