import tempfile
from pathlib import Path

import pytest

from harness.files import temporary_folder


def test_a_temporary_folder_that_a_cleaner_has_removed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "cleaned" / "away"))
    with temporary_folder() as folder:
        (folder / "file").write_text("text")
    assert not folder.exists()
