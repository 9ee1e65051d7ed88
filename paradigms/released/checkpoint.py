"""Files of weights, as tensors by name."""

from pathlib import Path
from pickle import UnpicklingError

from safetensors import SafetensorError
from timm.models import load_state_dict
from torch import Tensor


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a file as they are named there, without what timm's training wraps around them.

    Where a checkpoint has averaged weights beside the last ones, it is they, since those are evaluated.

    Raises:
        ValueError: the file is missing or holds something else; files that would execute code are refused.
    """
    if not Path(path).is_file():
        raise ValueError(f"no such file: {path}")
    try:
        found = load_state_dict(str(path), use_ema=True, weights_only=True)
    except (OSError, EOFError, RuntimeError, UnpicklingError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read as weights: {error}") from error
    except AttributeError:  # timm takes it for a dictionary
        found = {}
    if not found or not all(isinstance(x, Tensor) for x in found.values()):
        raise ValueError(f"{path} holds no weights: tensors by name, bare or where timm's training puts them")
    return found
