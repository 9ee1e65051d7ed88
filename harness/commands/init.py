"""`harness init`: copies of the shipped experiments and recipes."""

from collections.abc import Iterator
from pathlib import Path

from harness.errors import StoreError
from harness.reading import get_shipped_dir


def copy_experiments(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Copy them to `experiments/` in a folder, which is created if necessary; existing files are not changed.

    Yields the path of every file, and whether it was written.

    Raises:
        StoreError: the folder cannot be written to.
    """
    shipped = get_shipped_dir()
    for source in sorted(shipped.rglob("*.yaml")):
        target = folder / "experiments" / source.relative_to(shipped)
        try:
            yield target, _write_new(target, source.read_bytes())
        except OSError as error:
            raise StoreError(f"{target} cannot be written: {error.strerror}") from None


def _write_new(path: Path, content: bytes) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        if path.is_file():
            return False
        raise
    return True
