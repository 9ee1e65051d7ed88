"""Finds and checks the files of token labels, one per training image. Imports no torch.

They have the form of the authors of arXiv:2104.10858: `label_maps/CLASS/NAME.pt` for `train/CLASS/NAME.jpg`, whose
content `harness.data.token_labels` reads.
"""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from harness.data.folder import digest_names, list_files
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
    known = {name for name, _ in _list_files(data_dir)}
    missing = [name for name in map(_name_map, images) if name not in known]
    if missing:
        raise DataError(f"{len(missing):,} training images have no label map; the first is {FOLDER}/{missing[0]}")


def find_label_maps(data_dir: Path, images: Iterable[str]) -> list[Path]:
    """The file of each training image; `images` are paths below `train/`."""
    return [data_dir / FOLDER / _name_map(image) for image in images]


def digest_label_maps(data_dir: Path | None) -> str:
    """Of names and sizes alone, as of the images.

    Raises:
        DataError: no folder was given, or it has no label maps.
    """
    if data_dir is None:
        raise DataError("label maps are your files: give the folder that holds them by --data DIR")
    return digest_names(_list_files(data_dir))


def _name_map(image: str) -> str:
    return PurePosixPath(image).with_suffix(SUFFIX).as_posix()


def _list_files(data_dir: Path) -> list[tuple[str, int]]:
    """Path below the folder and size in bytes, sorted."""
    if not (data_dir / FOLDER).is_dir():
        raise DataError(
            f"{data_dir / FOLDER} is missing: token_labels need {FOLDER}/CLASS/NAME{SUFFIX} for every image of train/, "
            "in the form of arXiv:2104.10858"
        )
    return sorted(list_files(data_dir / FOLDER, (SUFFIX,)))
