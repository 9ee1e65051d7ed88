"""Archives are listed to their end, every image gets its class, and what is wrong is told with the archive's name."""

import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data.archive import label_images, read_archive
from harness.errors import DataError
from tests.harness.data.shards import write_shard

MEMBERS = {f"{name}/{number}.jpg": bytes(range(200)) * 2 for name in ("ant", "bee") for number in range(4)}


def _label(*paths: Path) -> tuple[dict[str, int], list[str]]:
    """The class of each image, and the names of the classes."""
    images, classes = label_images([read_archive(number, path) for number, path in enumerate(paths)])
    return {f"{paths[image.number].name}: {image.path}": label for label, image in images}, classes


def test_classes_are_the_folders_in_the_order_of_their_names(tmp_path: Path) -> None:
    first = write_shard(tmp_path / "1.tar", {"./cat/b.jpg": b"", "ant/deep/a.PNG": b"", "ant/note.txt": b""})
    second = write_shard(tmp_path / "2.tar", {"bee/a.jpg": b""})
    found, classes = _label(first, second)
    assert classes == ["ant", "bee", "cat"]
    assert found == {"1.tar: ant/deep/a.PNG": 0, "2.tar: bee/a.jpg": 1, "1.tar: cat/b.jpg": 2}


def test_classes_are_what_text_beside_the_images_says(tmp_path: Path) -> None:
    """Keys count within their archive, and end at the first dot; other members of a sample are ignored."""
    members = {"a.b/1.jpg": b"", "a.b/1.seg.png": b"x", "a.b/1.cls": b"7\n", "a.b/1.JSON": b"{}", "README": b""}
    paths = [write_shard(tmp_path / name, members) for name in ("1.tar", "2.tar")]
    assert _label(*paths) == ({"1.tar: a.b/1.jpg": 7, "2.tar: a.b/1.jpg": 7}, [])


def test_an_offset_is_where_the_bytes_of_an_image_begin(tmp_path: Path) -> None:
    names = {f"{'long' * 50}/\udcff.jpg": b"some bytes", "ant/1.jpg": b"other bytes"}
    path = write_shard(tmp_path / "0.tar", names)
    content = path.read_bytes()
    found = {image.path: content[image.offset :][: image.size] for image in read_archive(0, path).images}
    assert found == names


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda content: content[:700], "unexpected end of data"),
        (lambda content: content[: 2 * 512], "byte 1,024"),
        (lambda content: content[: len(content) // 2], ""),
        (lambda content: content.rstrip(b"\0") + bytes(-len(content.rstrip(b"\0")) % 512), "no end of the archive"),
        (lambda _: b"", "empty"),
        (lambda _: b"no archive" * 100, ""),
        (lambda content: content[:2048] + bytes([255] * 512) + content[2560:], ""),
    ],
    ids=["in an image", "after an image", "half", "without its end", "empty", "text", "a broken member"],
)
def test_a_damaged_archive_is_named(tmp_path: Path, cut: Callable[[bytes], bytes], message: str) -> None:
    path = write_shard(tmp_path / "0.tar", MEMBERS)
    path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(DataError, match=rf"0\.tar is no tar archive, damaged or cut off: .*{message}") as told:
        read_archive(0, path)
    assert len(str(told.value).splitlines()) == 1


def test_no_damage_escapes(tmp_path: Path) -> None:
    """Bytes that are changed or cut off are told, or are in an image."""
    generator, path = random.Random(0), write_shard(tmp_path / "0.tar", MEMBERS)
    whole = path.read_bytes()
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(3):
            content[generator.randrange(len(content))] = generator.randrange(256)
        path.write_bytes(content[: generator.randint(1, len(content))])
        try:
            assert len(read_archive(0, path).images) == len(MEMBERS)
        except DataError as error:
            assert str(path) in str(error)


def test_a_compressed_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("ant/1.jpg"))
    with pytest.raises(DataError, match=r"0\.tar is no tar archive.*restore it, uncompressed"):
        read_archive(0, path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.jpg": b"", "1.cls": b"0", "2.jpg": b""}, r"2\.jpg has no 2\.cls"),
        ({"1.jpg": b"", "1.cls": b"0", "2.cls": b"0"}, r"2\.cls has no image"),
        ({"1.jpg": b"", "1.png": b"", "1.cls": b"0"}, r"1\.cls has more than one image"),
        ({"1.jpg": b"", "1.cls": b"0", "./1.cls": b"0"}, r"1\.cls is there twice"),
        ({"1.jpg": b"", "1.cls": b"ant"}, r"1\.cls must contain the number of a class, got b'ant'"),
        ({"1.jpg": b"", "1.cls": b"-1"}, r"1\.cls must contain the number"),
        ({"1.jpg": b"", "1.cls": b"1" * 10}, r"1\.cls must contain the number"),
        ({"1.jpg": b""}, r"1\.jpg has no \.cls beside it, and no folder"),
    ],
    ids=str,
)
def test_members_without_a_class_are_named(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=rf"0\.tar: {message}"):
        _label(write_shard(tmp_path / "0.tar", members))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE], ids=["link", "hard link", "pipe"]
)
def test_a_member_that_is_no_file_is_named(tmp_path: Path, kind: bytes) -> None:
    path = write_shard(tmp_path / "0.tar", MEMBERS)
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("ant/9.jpg")
        member.type, member.linkname = kind, "1.jpg"
        archive.addfile(member)
    with pytest.raises(DataError, match=r"0\.tar: ant/9\.jpg is a link or no plain file"):
        read_archive(0, path)
