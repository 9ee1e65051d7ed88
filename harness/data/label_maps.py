"""Finds and checks the files of token labels, one per training image. Imports no torch.

They have the form of the authors of arXiv:2104.10858: `label_maps/CLASS/NAME.pt` for `train/CLASS/NAME.jpg`, whose
content `harness.data.token_labels` reads.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from harness.data.folder import digest_names, list_files
from harness.data.index import Columns, Names, Watch, get_digest, read_index
from harness.errors import DataError
from harness.spec import TrainingSpec

FOLDER, SUFFIX = "label_maps", ".pt"


def check_label_maps(data_dir: Path, training: TrainingSpec, *, images: Iterable[str]) -> None:
    """Every training image has its file, and the augmentation is one that label maps can follow.

    `images` are paths below `train/`.
    """
    policy = training.augmentation.auto_augment
    if policy is not None and not policy.startswith("rand"):
        raise DataError(
            f"training.augmentation.auto_augment: label maps support timm's rand policies only, got {policy!r}"
        )
    known = set(_read_index(data_dir)["files"])
    missing = [name for name in map(_name_map, images) if name not in known]
    if missing:
        raise DataError(f"{len(missing):,} training images have no label map; the first is {FOLDER}/{missing[0]}")


@dataclass(frozen=True)
class LabelMapFiles:
    """The file of each training image, by its number; `images` are paths below `train/`."""

    data_dir: Path
    images: Names

    def __getitem__(self, index: int, /) -> Path:
        return self.data_dir / FOLDER / _name_map(self.images[index])


def digest_label_maps(data_dir: Path | None) -> str:
    """Of names and sizes alone, as of the images.

    Raises:
        DataError: no folder was given, or it has no label maps.
    """
    if data_dir is None:
        raise DataError("label maps are your files: give the folder that holds them by --data DIR")
    return get_digest(_read_index(data_dir))


def _name_map(image: str) -> str:
    return PurePosixPath(image).with_suffix(SUFFIX).as_posix()


def _read_index(data_dir: Path) -> Columns:
    folder = data_dir / FOLDER
    if not folder.is_dir():
        raise DataError(
            f"{folder} is missing: token_labels need {FOLDER}/CLASS/NAME{SUFFIX} for every image of train/, "
            "in the form of arXiv:2104.10858"
        )
    return read_index(folder, FOLDER, partial(_list_files, folder))


def _list_files(folder: Path, watch: Watch) -> Columns:
    """Paths below the folder, and the digest of their names and sizes."""
    files = sorted(list_files(folder, (SUFFIX,), watch))
    return {"files": Names.pack(name for name, _ in files), "digest": Names.pack([digest_names(files)])}
