"""A folder is listed once as long as nothing in it changes, and again after every change."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.data import index
from harness.data.folder import list_files
from harness.data.index import Columns, Names, Watch, discard_index, read_index
from harness.files import find_cache

YEAR_2001 = 10**9


class Lister:
    """Lists the files of a folder and counts how often."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.times = folder, 0

    def __call__(self, watch: Watch) -> Columns:
        self.times += 1
        files = list_files(self.folder, (".jpg",), watch)
        return {"names": Names.pack(name for name, _ in files), "sizes": np.array([size for _, size in files])}

    def read(self, *, afresh: bool = True) -> list[str]:
        """The names, in a process that knows none where `afresh`."""
        if afresh:
            index._known.clear()
        return list(read_index(self.folder, "test", self)["names"])


@pytest.fixture
def lister(tmp_path: Path) -> Lister:
    folder = tmp_path / "images"
    (folder / "a" / "deep").mkdir(parents=True)
    for name in ("a/1.jpg", "a/2.jpg", "a/deep/3.jpg", "4.jpg"):
        (folder / name).write_bytes(b"pixels")
    for path in (folder, folder / "a", folder / "a" / "deep"):
        os.utime(path, (YEAR_2001, YEAR_2001))  # so that a change a moment from now has another time
    return Lister(folder)


def _stored() -> Path:
    (path,) = (find_cache() / "indexes").iterdir()
    return path


@pytest.mark.parametrize("names", [[], ["a"], ["a/b.jpg", "", os.fsdecode(b"\xff\xe9.jpg"), "ü"]], ids=len)
def test_names_are_kept_whatever_their_bytes(names: list[str]) -> None:
    packed = Names.pack(names)
    assert list(packed) == names
    assert len(packed) == len(names)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("afresh", [False, True], ids=["one process", "several processes"])
def test_a_folder_is_listed_once(lister: Lister, afresh: bool) -> None:
    expected = lister.read()
    assert expected == ["4.jpg", "a/1.jpg", "a/2.jpg", "a/deep/3.jpg"]
    assert [lister.read(afresh=afresh) for _ in range(3)] == [expected] * 3
    assert lister.times == 1


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a" / "5.jpg").write_bytes(b"new"),
        lambda folder: (folder / "a" / "deep" / "3.jpg").unlink(),
        lambda folder: (folder / "4.jpg").rename(folder / "5.jpg"),
        lambda folder: (folder / "a" / "1.jpg").rename(folder / "1.jpg"),
        lambda folder: (folder / "b").mkdir(),
        lambda folder: (folder / "a").rename(folder / "b"),
    ],
    ids=["new file", "file removed", "file renamed", "file moved", "new folder", "folder renamed"],
)
def test_every_change_of_a_folder_is_noticed(lister: Lister, change: Callable[[Path], object]) -> None:
    lister.read()
    change(lister.folder)
    found = lister.read()
    assert lister.times == 2
    assert found == [name for name, _ in list_files(lister.folder, (".jpg",), Watch())]
    lister.read(afresh=False)
    assert lister.times == 2


@pytest.mark.usefixtures("settled")
def test_a_time_that_was_set_back_hides_no_change(lister: Lister) -> None:
    """As `rsync -a` and `tar` leave folders."""
    lister.read()
    before, probe = lister.folder.stat().st_ctime_ns, lister.folder.parent / "probe"
    while not probe.exists() or probe.stat().st_ctime_ns == before:  # the clock of the file system has coarse ticks
        probe.write_bytes(b"")
    (lister.folder / "5.jpg").write_bytes(b"new")
    os.utime(lister.folder, (YEAR_2001, YEAR_2001))
    assert "5.jpg" in lister.read()


def test_a_folder_that_has_just_changed_is_listed_again(lister: Lister) -> None:
    assert lister.read(afresh=False) == lister.read(afresh=False)
    assert lister.times == 2
    assert not find_cache().exists()


@pytest.mark.usefixtures("settled")
def test_a_file_system_without_times_of_folders_is_listed_again(lister: Lister) -> None:
    os.utime(lister.folder, (0, 0))
    lister.read()
    lister.read()
    assert lister.times == 2


@pytest.mark.usefixtures("settled")
def test_a_damaged_index_is_made_again(lister: Lister) -> None:
    expected = lister.read()
    whole = _stored().read_bytes()
    flipped = bytes([whole[0] ^ 1]) + whole[1:], whole[:-1] + bytes([whole[-1] ^ 1])
    damages = (b"", whole[:16], whole[:-1], whole + b"x", b"\0" * len(whole), *flipped)
    for damaged in damages:
        _stored().write_bytes(damaged)
        assert lister.read() == expected
        assert _stored().read_bytes()[:32] == whole[:32]
    assert lister.times == 1 + len(damages)


@pytest.mark.usefixtures("settled")
def test_an_index_of_other_code_is_made_again(lister: Lister, monkeypatch: pytest.MonkeyPatch) -> None:
    lister.read()
    monkeypatch.setattr(index, "_digest_code", lambda: "other rules")
    lister.read()
    lister.read()
    assert lister.times == 2


@pytest.mark.usefixtures("settled")
def test_a_cache_that_cannot_be_written_is_no_error(lister: Lister) -> None:
    find_cache().parent.mkdir(exist_ok=True)
    find_cache().write_bytes(b"a file where a folder should be")
    assert lister.read() == lister.read()
    assert lister.times == 2
    lister.read(afresh=False)
    assert lister.times == 2


@pytest.mark.usefixtures("settled")
def test_a_discarded_index_is_made_again(lister: Lister) -> None:
    lister.read()
    discard_index(lister.folder, "test")
    lister.read(afresh=False)
    assert lister.times == 2


@pytest.mark.usefixtures("settled")
def test_an_index_that_another_process_discards_is_forgotten(lister: Lister) -> None:
    lister.read()
    _stored().unlink()
    lister.read(afresh=False)
    assert lister.times == 2


@pytest.mark.usefixtures("settled")
def test_two_that_write_at_once_leave_a_whole_index(lister: Lister) -> None:
    expected = lister.read()
    path = _stored()
    _, (watch, columns) = index._known[path]
    writers = [
        threading.Thread(target=lambda: [index._store(path, watch, columns) for _ in range(30)]) for _ in range(2)
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        found = index._load(path)
        assert found is not None
        assert list(found[1]["names"]) == expected
    assert [each.name for each in path.parent.iterdir()] == [path.name]
