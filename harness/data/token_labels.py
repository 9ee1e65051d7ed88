"""Token labeling (arXiv:2104.10858): label maps that follow their image's augmentation, and the targets.

A label map is a tensor of (2, k, rows, columns) in a file: the k largest logits of a trained classifier at each place
of the whole image, then their classes. It is cropped as its image by RoI-align, flipped and moved with it, and becomes
a distribution over all classes for every token. Classes that are not among the k have logit 0, as in the released code.

Differs from the released code of the paper:

* Their code passes a crop's top and left to RoI-align as x and y, which transposes the crop. Here, they are y and x.
* Their code applies the operations of RandAugment that move pixels to the label map before the crop, in the map's
  resolution. Here, the label map follows the image's pixels in timm's order, crop first. A token that shows pixels
  outside the image has logit 0 for every class.
* The label of the image is the mean of its tokens' logits. In their code, it is a second RoI-align with one output.
* Smoothed labels sum to one. In their code, they sum to 1 + smoothing / classes.
"""

import copy
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from PIL import Image
from timm.data.auto_augment import AugmentOp, RandAugment
from timm.data.transforms import RandomResizedCropAndInterpolation
from timm.models.volo import rand_bbox
from torch import Tensor
from torch.nn.functional import pad
from torchvision.ops import roi_align
from torchvision.transforms import RandomHorizontalFlip

from harness.batch import Box, TokenTargets
from harness.data.label_maps import LabelMapFiles
from harness.errors import DataError
from harness.spec import DataSpec, TokenLabelsSpec, TrainingSpec

MOVES = ("Rotate", "Shear", "Translate")
"""What the names of timm's operations that move pixels begin with."""

READ_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)
"""What torch raises for files that are damaged or foreign."""

OUTSIDE = -1
"""The place of a pixel that shows nothing of the image."""


class FollowedMap(NamedTuple):
    """A label map, and what became of its image.

    Attributes:
        scores: logits.
        classes: whose they are.
        box: the crop: left, top, right, bottom, in parts of the image.
        places: for each token the one of the crop, row by row, that moved there; `OUTSIDE` where none did.
    """

    scores: Float[Tensor, "*batch k rows columns"]
    classes: Int[Tensor, "*batch k rows columns"]
    box: Float[Tensor, "*batch 4"]
    places: Int[Tensor, "*batch tokens"]

    def to(self, *, device: torch.device, non_blocking: bool = False) -> Self:
        """The same on a device: what timm's loaders ask of a target."""
        return type(self)(*(tensor.to(device=device, non_blocking=non_blocking) for tensor in self))


@dataclass(frozen=True)
class _View:
    """An image on its way through the augmentation.

    Attributes:
        box: the crop, as in `FollowedMap`.
        places: the number of the crop's pixel that each pixel shows; None before the crop.
    """

    image: Any
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    places: Image.Image | None = None


class LabelMaps:
    """The label maps of a training set, by the number of the image."""

    def __init__(self, paths: LabelMapFiles | Sequence[Path], data: DataSpec, labels: TokenLabelsSpec) -> None:
        self.paths, self.num_classes, self.grid = paths, data.num_classes, labels.grid
        self.shape = read_label_map(paths[0], self.num_classes).shape

    def follow(
        self, transform: Callable[[Image.Image], Any], image: Image.Image, index: int
    ) -> tuple[NDArray[np.uint8], FollowedMap]:
        """Augment an image by timm's `transform`; the pixels are those that it gives without a label map.

        Raises:
            DataError: the file is no label map of these classes, or of another shape than the first one.
        """
        label_map = read_label_map(self.paths[index], self.num_classes)
        if label_map.shape != self.shape:
            shapes = f"{list(label_map.shape)}, {self.paths[0]} has {list(self.shape)}"
            raise DataError(f"{self.paths[index]} has the shape {shapes}: all label maps must have one")
        view = follow_pixels(transform.transforms, image)  # type: ignore[attr-defined]
        scores, classes = label_map
        places = to_token_places(view.places, self.grid)
        return view.image, FollowedMap(scores.float(), classes.long(), torch.tensor(view.box), places)


def read_label_map(path: Path, num_classes: int) -> Tensor:
    """A file's tensor, (2, k, rows, columns): logits and classes, in float16 as the authors' files.

    Raises:
        DataError: it is no such file, or has a class that the recipe does not have.
    """
    try:
        label_map: object = torch.load(path, weights_only=True)
    except READ_ERRORS as error:
        first = str(error).strip().partition("\n")[0]
        reason = "it must contain one tensor and nothing else" if isinstance(error, pickle.UnpicklingError) else first
        raise DataError(f"{path} cannot be read: {reason or type(error).__name__}") from error
    if not isinstance(label_map, Tensor) or label_map.ndim != 4 or len(label_map) != 2:
        found = list(label_map.shape) if isinstance(label_map, Tensor) else type(label_map).__name__
        raise DataError(f"{path}: a label map is a tensor of (2, k, rows, columns), got {found}")
    if not label_map.numel() or not label_map.is_floating_point():
        raise DataError(f"{path}: a label map has logits in floating point, got {label_map.numel()} {label_map.dtype}")
    low, high = label_map[1].aminmax()
    if not 0 <= low <= high < num_classes:
        raise DataError(f"{path} has the classes {low:.0f} to {high:.0f}, the recipe's are 0 to {num_classes - 1}")
    return label_map


def follow_pixels(steps: Sequence[Any], image: Image.Image) -> _View:
    """An image through the steps of timm's transform, with where its pixels come from."""
    view = _View(image)
    for step in steps:
        view = _FOLLOW.get(type(step), _change)(step, view)
    return view


def _change(step: Any, view: _View) -> _View:
    """No pixel moves."""
    return replace(view, image=step(view.image))


def _crop(step: RandomResizedCropAndInterpolation, view: _View) -> _View:
    width, height = view.image.size
    with _random_state_preserved():
        top, left, rows, columns = step.get_params(view.image, step.scale, step.ratio)
    box = (left / width, top / height, (left + columns) / width, (top + rows) / height)
    places = np.arange(step.size[0] * step.size[1], dtype=np.int32).reshape(step.size)
    return _View(step(view.image), box, Image.fromarray(places))


def _flip(step: RandomHorizontalFlip, view: _View) -> _View:
    with _random_state_preserved():
        places = step(view.places)
    return replace(view, image=step(view.image), places=places)


def _augment(step: RandAugment, view: _View) -> _View:
    followed: _View = RandAugment([_Follower(op) for op in step.ops], step.num_layers, step.choice_weights)(view)
    return followed


class _Follower:
    """One of timm's operations, done to an image and, where it moves pixels, to their places."""

    def __init__(self, operation: AugmentOp) -> None:
        self.operation, self.moves = operation, operation.name.startswith(MOVES)
        self.on_places = copy.copy(operation)
        self.on_places.kwargs = {"fillcolor": OUTSIDE, "resample": Image.Resampling.NEAREST}

    def __call__(self, view: _View) -> _View:
        places = view.places
        if self.moves:
            with _random_state_preserved():
                places = self.on_places(places)
        return replace(view, image=self.operation(view.image), places=places)


_FOLLOW: dict[type, Callable[[Any, _View], _View]] = {
    RandomResizedCropAndInterpolation: _crop,
    RandomHorizontalFlip: _flip,
    RandAugment: _augment,
}


@contextmanager
def _random_state_preserved() -> Iterator[None]:
    """What is drawn inside is drawn once more outside."""
    state = random.getstate()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(state)


def to_token_places(places: Image.Image | None, grid: int) -> Int[Tensor, "tokens"]:
    """Places of pixels → of tokens, each taken at its middle."""
    assert places is not None, "timm's training transform begins with a crop"
    pixels = np.asarray(places)
    side = len(pixels)
    middles = (2 * np.arange(grid) + 1) * side // (2 * grid)
    found = pixels[middles[:, None], middles].astype(np.int64)
    tokens = found // side * grid // side * grid + found % side * grid // side
    return torch.from_numpy(np.where(found == OUTSIDE, OUTSIDE, tokens).ravel())


class TokenLabeling:
    """Makes targets of the label maps of a batch, and draws what MixToken exchanges: from torch's global generator.

    Differs from the released code: the box is drawn with the batch, beside all other augmentation, not in the model.
    """

    def __init__(self, data: DataSpec, training: TrainingSpec) -> None:
        assert training.token_labels is not None
        self.labels, self.num_classes, self.smoothing = training.token_labels, data.num_classes, training.smoothing

    def __call__(self, images: Tensor, maps: FollowedMap) -> tuple[Tensor, TokenTargets]:
        """The images, which the model itself mixes, and their targets."""
        logits = to_token_logits(maps, num_classes=self.num_classes, grid=self.labels.grid)
        image, tokens = (self._smooth(scores.softmax(-1)) for scores in (logits.mean((1, 2)), logits))
        box = draw_box(self.labels.grid, self.labels.mix_token)
        return images, TokenTargets(mix_labels(image, box, self.labels.grid), tokens, box)

    def _smooth(self, target: Tensor) -> Tensor:
        return (1 - self.smoothing) * target + self.smoothing / self.num_classes


def to_token_logits(maps: FollowedMap, *, num_classes: int, grid: int) -> Float[Tensor, "batch grid grid classes"]:
    """What each token of the augmented images shows, as logits of all classes."""
    batch, _, rows, columns = maps.scores.shape
    whole = maps.scores.new_zeros(batch, num_classes, rows, columns).scatter_(1, maps.classes, maps.scores)
    corners = maps.box * maps.box.new_tensor([columns, rows, columns, rows])
    numbered = torch.cat([torch.arange(batch, device=corners.device)[:, None], corners], dim=1)
    cropped = roi_align(whole, numbered, output_size=grid, aligned=True)  # (B, classes, grid, grid)
    with_outside = pad(cropped.flatten(2), (0, 1))  # one more token, of zeros
    index = torch.where(maps.places == OUTSIDE, grid * grid, maps.places)
    moved = with_outside.gather(2, index[:, None].expand(-1, num_classes, -1))  # (B, classes, tokens)
    return moved.movedim(1, -1).reshape(batch, grid, grid, num_classes)


def draw_box(grid: int, alpha: float) -> Box:
    """What MixToken exchanges between two images, in tokens; the rest has an area drawn from Beta(alpha, alpha)."""
    if alpha == 0:
        return 0, 0, 0, 0
    kept = torch.distributions.Beta(alpha, alpha).sample()
    box: Box = rand_bbox((1, grid, grid), cast("float", kept))  # a tensor, whatever timm's signature says
    return box


def mix_labels(image: Float[Tensor, "batch classes"], box: Box, grid: int) -> Float[Tensor, "batch classes"]:
    """The labels of images that have exchanged `box` with those of the batch in reverse: by area."""
    top, left, bottom, right = box
    exchanged = (bottom - top) * (right - left) / grid**2
    return (1 - exchanged) * image + exchanged * image.flip(0)
