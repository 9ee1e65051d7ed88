"""Reads files of weights as tensors by name.

The format is detected from the first bytes of a file, not from its name. Damage is detected if the format allows it:
torch's files have a checksum for each tensor, and the header of a safetensors file must cover every byte. A changed
byte inside a tensor of a safetensors file, or of torch's format before 1.6, cannot be detected.
"""

import struct
from argparse import Namespace
from pathlib import Path
from pickle import UnpicklingError
from zipfile import BadZipFile, ZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

READ_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BadZipFile,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    UnpicklingError,
    ValueError,
    struct.error,
)
"""Exceptions of readers for damaged files and unknown formats."""

AVERAGED, LAST = ("state_dict_ema", "model_ema"), ("state_dict", "model")
"""Keys of weights in checkpoints of trainings: averaged weights first, since they are the ones that are evaluated."""

ZIP, PICKLE, LFS = b"PK\x03\x04", b"\x80", b"version https://git-lfs"


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a file by their names, without the other content of timm's checkpoints.

    If a checkpoint also has averaged weights, these are returned, since they are the ones that are evaluated.

    Raises:
        ValueError: the file is missing or damaged, has no weights, or would execute code.
    """
    if not Path(path).is_file():
        raise ValueError(f"no such file: {path}")
    try:
        found = _unwrap(_read(Path(path)))
    except READ_ERRORS as error:
        raise ValueError(f"{path} cannot be read as weights: {_explain(Path(path), error)}") from error
    if not found:
        raise ValueError(
            f"{path} has no weights: expected tensors by name, at the top level or where timm's training script "
            "stores them"
        )
    _check_tensors(Path(path), found)
    return found


def _read(path: Path) -> object:
    with path.open("rb") as file:
        start = file.read(len(LFS))
    if start.startswith(ZIP):
        _check_archive(path)
    elif _is_safetensors(start):
        return load_file(path)
    elif not start.startswith(PICKLE):
        raise ValueError(_describe_content(start))
    with safe_globals([Namespace]):  # timm's checkpoints contain their options as a Namespace
        return torch.load(path, map_location="cpu", weights_only=True)


def _is_safetensors(start: bytes) -> bool:
    """Whether a file starts like safetensors: eight bytes of length, then a JSON object."""
    return start[8:9] == b"{"


def _describe_content(start: bytes) -> str:
    """Describe a file that has no weights."""
    if not start:
        return "it is empty"
    if start == LFS:
        return "it is a pointer of Git LFS, not the file that it stands for; fetch that with `git lfs pull`"
    if start.lstrip().startswith((b"<", b"{")):
        return "it is a page or a text, perhaps the message of a server; download the file itself"
    return f"it begins with {start[:8]!r}, which is neither torch's format nor that of safetensors"


def _check_archive(path: Path) -> None:
    """Compare every part of torch's archive with its checksum, which torch itself does not."""
    try:
        with ZipFile(path) as archive:
            damaged = archive.testzip()
    except (BadZipFile, NotImplementedError) as error:
        raise ValueError(f"it is damaged or cut off: {error}") from error
    if damaged is not None:
        raise ValueError(f"it is damaged: the checksum of {damaged} in it is wrong")


def _unwrap(content: object) -> dict[str, Tensor]:
    """The tensors of a checkpoint; empty if it has other content."""
    if not isinstance(content, dict):
        return {}
    place = next((name for name in (*AVERAGED, *LAST) if content.get(name) is not None), None)
    weights = content if place is None else content[place]
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        return {}
    if not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        return {}
    cleaned: dict[str, Tensor] = clean_state_dict(weights)
    if len(cleaned) < len(weights):
        raise ValueError("two of its tensors have one name without the prefixes of torch.compile and DDP")
    return cleaned


def _check_tensors(path: Path, weights: dict[str, Tensor]) -> None:
    for name, tensor in weights.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
            raise ValueError(
                f"{path}: {name} must be a dense tensor of real numbers, got {tensor.dtype}, {tensor.layout}"
            )


def _explain(path: Path, error: Exception) -> str:
    """The error in one line, without torch's advice to load the file with its code."""
    if isinstance(error, UnpicklingError):
        unsafe = _list_code(path)
        return f"it would execute code: {', '.join(unsafe)}" if unsafe else "it is damaged, or not a file of torch"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if isinstance(error, ValueError) else f"it is damaged, cut off or foreign: {lines[0]}"


def _list_code(path: Path) -> list[str]:
    """The functions and classes in a file of torch that are not part of tensors."""
    try:
        return sorted(set(get_unsafe_globals_in_checkpoint(path)) - {"argparse.Namespace"})
    except READ_ERRORS:
        return []
