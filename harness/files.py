"""Temporary folders, and files that are written at once or not at all."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@contextmanager
def temporary_folder(prefix: str = "harness-") -> Iterator[Path]:
    """A new folder, deleted at the end; its parent is made again where a cleaner of temporary files has removed it."""
    parent = Path(tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def find_cache() -> Path:
    """The project's folder in the user's cache, which need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elsa-ablation"


def locate_cached(folder: str, content: object) -> Path:
    """The JSON file in the user's cache of what follows from `content`, plain values that name the file."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return find_cache() / folder / f"{digest}.json"


def write_cached(path: Path, content: str | bytes) -> None:
    """Keep a file in the user's cache; where that cannot be written, the content is found again."""
    with suppress(OSError):
        write_atomically(path, content)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file at once or not at all, and the folder that it lies in; text is UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def write_arrays(path: Path, arrays: Mapping[str, "np.ndarray[Any, Any]"]) -> Path:
    """Write arrays to an `.npz` file, at once or not at all; it loads without executing code."""
    import numpy as np

    content = BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    write_atomically(path, content.getvalue())
    return path
