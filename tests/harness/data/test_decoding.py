"""Every mode of Pillow's becomes RGB correctly or is refused; every error of a decoder names its image."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from harness.data.decoding import DECODE_ERRORS, naming_image, open_image, to_rgb
from harness.errors import DataError

RAMP = np.linspace(0, 255, 7 * 5).astype(np.uint8).reshape(5, 7)


def _stored(image: Image.Image, kind: str, **options: object) -> Image.Image:
    """What a file of some format gives back."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return open_image(file)


def _gray(image: Image.Image) -> NDArray[np.uint8]:
    """The one channel that a gray image has three times."""
    pixels = np.asarray(to_rgb(image))
    assert pixels.shape == (5, 7, 3)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_of_gray_are_scaled(kind: str, order: str) -> None:
    image = Image.fromarray((257 * RAMP.astype(np.uint16)).astype(order))
    if kind != "TIFF":
        image = Image.fromarray(np.asarray(image).astype("<u2"))
    assert np.array_equal(_gray(_stored(image, kind)), RAMP)


def test_a_tiff_whose_zero_is_white_is_inverted() -> None:
    stored = _stored(Image.fromarray(257 * RAMP.astype(np.uint16)), "TIFF", tiffinfo={262: 0})
    assert np.array_equal(_gray(stored), 255 - RAMP)


def test_twelve_bits_of_gray_are_scaled_from_their_own_range() -> None:
    tags = {256: 2, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 3}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    pixels = bytes([0xFF, 0xF8, 0x00])  # 4095, 2048
    file = io.BytesIO(
        b"II*\0" + struct.pack("<I", 12) + pixels + b"\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    )
    assert np.asarray(to_rgb(open_image(file)))[0, :, 0].tolist() == [255, 128]


def test_a_gray_value_that_stands_for_transparency_is_white() -> None:
    stored = _stored(Image.fromarray(257 * RAMP.astype(np.uint16)), "PNG", transparency=0)
    found = _gray(stored)
    assert found[0, 0] == 255
    assert np.array_equal(found[1:], RAMP[1:])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LAB"])
def test_eight_bits_become_rgb_as_in_pillow(mode: str) -> None:
    image = Image.fromarray(np.stack([RAMP, RAMP.T.reshape(5, 7), RAMP[::-1]], -1)).convert("RGB")
    if mode == "LAB":
        image = Image.merge("LAB", image.split())
    image = image.convert(mode)
    assert np.array_equal(np.asarray(to_rgb(image)), np.asarray(image.convert("RGB")))
    assert np.ptp(np.asarray(to_rgb(image))) > 0


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparent_pixels_show_white(mode: str) -> None:
    """Black on transparent black: without its alpha channel it is one colour."""
    alpha = np.where(RAMP < 100, 0, 255).astype(np.uint8)
    image = Image.fromarray(np.stack([0 * RAMP, alpha], -1), "LA")
    if mode == "PA":
        image = Image.new("P", image.size)
        image.putalpha(Image.fromarray(alpha))
    image = _stored(image.convert("RGBA").quantize(4), "PNG") if mode == "P" else image.convert(mode)
    assert image.mode == mode
    assert np.array_equal(_gray(image), 255 - alpha)


def test_opaque_pixels_keep_their_colour_exactly() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(pixels))), pixels[..., :3])


def _white_on_transparent() -> Image.Image:
    return Image.fromarray(np.stack([0 * RAMP + 255, RAMP], -1), "LA")


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image.fromarray(RAMP.astype(np.int32) * 1000), "mode 'I'"),
        (Image.fromarray(RAMP.astype(np.float32) / 255), "mode 'F'"),
        (Image.new("La", (7, 5)), "mode 'La'"),
        (_white_on_transparent(), "one colour"),
    ],
    ids=["integers", "floats", "premultiplied", "white on transparent"],
)
def test_what_eight_bits_cannot_show_is_refused(image: Image.Image, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        to_rgb(image)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, *chunks: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks)


def _whole() -> bytes:
    file = io.BytesIO()
    Image.fromarray(RAMP).save(file, "PNG")
    return file.getvalue()


PIXELS = _chunk(b"IDAT", zlib.compress(b"\0\0\0"))
DAMAGED = {
    "empty": b"",
    "text": b"<!doctype html>",
    "decompression bomb": _png(60_000, 60_000, PIXELS),
    "oversized text": _png(2, 1, _chunk(b"zTXt", b"a\0\0" + zlib.compress(b" " * 2_000_000)), PIXELS),
    "no pixels": _png(0, 1, PIXELS),
    "truncated": _whole()[:-30],
    "wrong checksum": _whole()[:20] + b"\1" + _whole()[21:],
    "broken header": b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", b"\0\0"),
    "a TIFF of nothing": b"II*\0\x08\0\0\0\xff\xff",
    "a PPM of letters": b"P5 a b c",
    "a PPM without pixels": b"P5 0 0 255\n",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_image_is_named_whatever_its_decoder_raises(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "3.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"3\.png cannot be decoded: .") as told, naming_image(path.__str__):
        to_rgb(open_image(path))
    assert "\n" not in str(told.value)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM", "GIF"])
def test_no_damage_escapes(kind: str, tmp_path: Path) -> None:
    """Bytes that are lost, changed or cut off are decoded or told, whatever the format."""
    random, file = np.random.default_rng(0), io.BytesIO()
    Image.fromarray(np.stack([RAMP] * 3, -1)).save(file, kind)
    path = tmp_path / "damaged"
    for _ in range(40):
        content = bytearray(file.getvalue())
        for place in random.integers(0, len(content), 3):
            content[place] = random.integers(256)
        path.write_bytes(content[: random.integers(1, len(content) + 1)])
        try:
            with naming_image(path.__str__):
                to_rgb(open_image(path))
        except DataError as error:
            assert str(path) in str(error)


def test_memory_that_runs_out_says_nothing_of_the_file() -> None:
    with pytest.raises(MemoryError), naming_image("a.png".__str__):
        raise MemoryError
    assert not issubclass(MemoryError, DECODE_ERRORS)
