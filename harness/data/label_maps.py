"""Files of token labels, one for each training image: where they lie and whether all are there. Imports no torch.

They have the form of the authors of arXiv:2104.10858: `label_maps/CLASS/NAME.pt` for `train/CLASS/NAME.jpg`, whose
content `harness.data.token_labels` reads.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from harness.errors import DataError
from harness.spec import TrainingSpec

FOLDER, SUFFIX = "label_maps", ".pt"


def check_label_maps(data_dir: Path, training: TrainingSpec, *, images: Iterable[str]) -> None:
    """Every training image has its file, and the augmentation is one that label maps can follow.

    `images` are paths below `train/`.
    """
    policy = training.augmentation.auto_augment
    if policy is not None and not policy.startswith("rand"):
        raise DataError(f"training.augmentation.auto_augment: label maps follow timm's rand policies, not {policy!r}")
    if not (data_dir / FOLDER).is_dir():
        raise DataError(
            f"{data_dir / FOLDER} is missing: token_labels need {FOLDER}/CLASS/NAME{SUFFIX} for every image of train/, "
            "in the form of arXiv:2104.10858"
        )
    known = {name for name, _ in _list_files(data_dir)}
    missing = [name for name in map(_name_map, images) if name not in known]
    if missing:
        raise DataError(f"{len(missing):,} training images have no label map; the first is {FOLDER}/{missing[0]}")


def find_label_maps(data_dir: Path, images: Iterable[str]) -> list[Path]:
    """The file of each training image; `images` are paths that begin with `data_dir`."""
    train, maps = data_dir / "train", data_dir / FOLDER
    return [maps / _name_map(Path(image).relative_to(train).as_posix()) for image in images]


def digest_label_maps(data_dir: Path | None) -> str:
    """Of names and sizes alone, as of the images.

    Raises:
        DataError: no folder was given.
    """
    if data_dir is None:
        raise DataError("label maps are your files: give the folder that holds them by --data DIR")
    lines = [f"{name} {size}" for name, size in _list_files(data_dir)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _name_map(image: str) -> str:
    return PurePosixPath(image).with_suffix(SUFFIX).as_posix()


def _list_files(data_dir: Path) -> list[tuple[str, int]]:
    """Path below the folder and size in bytes, sorted."""
    folder = data_dir / FOLDER
    return sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in folder.rglob(f"*{SUFFIX}"))
