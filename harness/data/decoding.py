"""Decodes an image file to 8-bit RGB without silent loss.

Pillow's `convert("RGB")` clips values of more than eight bits and ignores transparency. Here:

* Modes of eight bits or less (gray, palette, RGB, CMYK, YCbCr, LAB, HSV, black and white) become RGB as in Pillow.
* 16-bit gray is scaled from its whole range: 65535 becomes 255. A TIFF of 12 bits ends at 4095 instead.
* Transparent pixels become white. An image that has only one color afterwards, but not before, is an error.
* Numbers without a known range (32-bit integers, floating point), and all other modes, are an error.
"""

import errno
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from harness.errors import ImageError

DECODE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Image.DecompressionBombError,
    struct.error,
    zlib.error,
)
"""What Pillow raises for damaged files; no MemoryError, which says nothing about the file."""

EIGHT_BITS = frozenset({"1", "CMYK", "HSV", "L", "LAB", "P", "RGB", "RGBX", "YCbCr"})
WITH_ALPHA = frozenset({"LA", "PA", "RGBA", "RGBa"})
SIXTEEN_BITS = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
WHITE_IS_ZERO = 0
"""A TIFF's photometric interpretation; Pillow inverts such images in all modes but these of 16 bits."""


@contextmanager
def naming_image(find_name: Callable[[], str]) -> Iterator[None]:
    """Errors of a decoder become an `ImageError` with the image's name."""
    try:
        yield
    except DECODE_ERRORS as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(f"{find_name()} cannot be decoded: {reason or type(error).__name__}") from error


def open_image(source: Path | str | IO[bytes]) -> Image.Image:
    """Decode all of a file, in the mode that it has."""
    with Image.open(source) as image:
        image.load()
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode.

    Raises:
        ValueError: its pixels cannot be shown by eight bits without guessing.
    """
    if image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format == "PPM"):
        image = _scale_gray(image)
    if image.mode not in EIGHT_BITS | WITH_ALPHA:
        raise ValueError(f"pixels of mode {image.mode!r} have no known range; save it with 8 or 16 bits a channel")
    return _lay_over_white(image) if image.has_transparency_data else image.convert("RGB")


def _scale_gray(image: Image.Image) -> Image.Image:
    """More than eight bits → `L`, or `LA` where one value stands for transparency.

    Pillow gives a PPM's numbers in 16 bits, whatever its own largest value is.
    """
    values, white = np.asarray(image).astype(np.float64), 65535
    if isinstance(image, TiffImageFile):
        white = 2 ** image.tag_v2.get(BITSPERSAMPLE, (16,))[0] - 1
        if image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
            values = white - values
    gray = Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))
    key = image.info.get("transparency")
    if key is not None:
        gray.putalpha(Image.fromarray(np.where(np.asarray(image) == key, 0, 255).astype(np.uint8)))
    return gray


def _lay_over_white(image: Image.Image) -> Image.Image:
    visible = image.convert("RGBA")
    shown = Image.alpha_composite(Image.new("RGBA", image.size, "white"), visible).convert("RGB")
    if _is_one_colour(shown) and not _is_one_colour(visible):
        raise ValueError("it is one colour where its transparent pixels show white; give it a background")
    return shown


def _is_one_colour(image: Image.Image) -> bool:
    return not np.ptp(np.asarray(image), axis=(0, 1)).any()
