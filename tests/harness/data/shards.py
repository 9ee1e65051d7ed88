"""Archives of images."""

import io
import random
import tarfile
from pathlib import Path

CLASSES = ("ant", "bee", "cat")

LAYOUTS = ("by text", "by folder")
"""How an archive gives classes."""


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    """An archive of files by their names in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def pack_shards(folder: Path, target: Path, layout: str) -> Path:
    """The images of a folder in shuffled archives of five."""
    for split in ("train", "val"):
        paths = sorted((folder / split).glob("*/*"))
        random.Random(split).shuffle(paths)
        for start in range(0, len(paths), 5):
            members: dict[str, bytes] = {}
            for path in paths[start : start + 5]:
                if layout == "by folder":
                    members[f"./{path.parent.name}/{path.name}"] = path.read_bytes()
                else:
                    members[path.name] = path.read_bytes()
                    members[f"{path.stem}.json"] = b"{}"
                    members[f"{path.stem}.cls"] = str(CLASSES.index(path.parent.name)).encode()
            write_shard(target / split / f"{start:04d}.tar", members)
    return target
