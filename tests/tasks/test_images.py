from __future__ import annotations

import io
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_task2vec.errors import ImageDecodeError
from hf_task2vec.tasks.images import (
    FORMATS,
    ImageSample,
    ImageStore,
    decode_rgb,
    looks_like_image,
    read_encoded,
    to_rgb,
)
from hf_task2vec.tasks.sampling import Unusable
from tests.support.pictures import png_header


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def pixels(image: Image.Image) -> list[list[list[int]]]:
    assert image.mode == "RGB"
    return np.asarray(image).tolist()


def test_grey_and_bilevel() -> None:
    assert pixels(decode_rgb(encoded(Image.fromarray(np.uint8([[0, 100, 255]]))))) == [[[0] * 3, [100] * 3, [255] * 3]]
    bilevel = Image.fromarray(np.uint8([[0, 255]])).convert("1")
    assert pixels(decode_rgb(encoded(bilevel))) == [[[0] * 3, [255] * 3]]


def test_transparency_becomes_white_paper() -> None:
    rgba = Image.fromarray(np.uint8([[[255, 0, 0, 255], [10, 20, 30, 0], [0, 0, 0, 128]]]))
    opaque, clear, half = pixels(decode_rgb(encoded(rgba)))[0]
    assert opaque == [255, 0, 0]
    assert clear == [255, 255, 255], "the hidden colour must not show"
    assert half == [127, 127, 127]
    grey = Image.new("LA", (2, 1), (0, 255))
    grey.putpixel((1, 0), (0, 0))
    assert pixels(decode_rgb(encoded(grey))) == [[[0, 0, 0], [255, 255, 255]]]


def test_palette_with_and_without_transparency() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    assert pixels(decode_rgb(encoded(palette))) == [[[10, 20, 30], [200, 100, 50]]]
    assert pixels(decode_rgb(encoded(palette, transparency=1))) == [[[10, 20, 30], [255, 255, 255]]]
    assert pixels(decode_rgb(encoded(palette, transparency=b"\x00\xff"))) == [[[255, 255, 255], [200, 100, 50]]]


def test_transparent_colour_of_an_rgb_png() -> None:
    image = Image.fromarray(np.uint8([[[1, 2, 3], [4, 5, 6]]]))
    assert pixels(decode_rgb(encoded(image, transparency=(1, 2, 3)))) == [[[255, 255, 255], [4, 5, 6]]]


def test_cmyk() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert pixels(decode_rgb(encoded(image, "TIFF")))[0][0] == [255, 0, 0]
    red, green, blue = pixels(decode_rgb(encoded(image, "JPEG", quality=100)))[0][0]
    assert red > 245
    assert green < 10
    assert blue < 10


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(file_format: str) -> None:
    image = Image.fromarray(np.array([[0, 257, 32768, 65535]], dtype=np.uint16))
    assert [grey for grey, *_ in pixels(decode_rgb(encoded(image, file_format)))[0]] == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),  # 8-bit values in a wide type
        ([0, 257, 65535], [0, 1, 255]),  # 16-bit values
        ([-100, 0, 100], [0, 128, 255]),  # anything else: its own range
        ([200000, 200000, 200000], [0, 0, 0]),
    ],
)
def test_32_bit_integers(values: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.int32))
    assert image.mode == "I"
    assert [grey for grey, *_ in pixels(decode_rgb(encoded(image, "TIFF")))[0]] == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 99.9, 255.0], [0, 100, 255]),
        ([-1.0, 0.0, np.nan, 1.0], [0, 128, 0, 255]),
    ],
)
def test_floats(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert [grey for grey, *_ in pixels(decode_rgb(encoded(image, "TIFF")))[0]] == expected


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [[0, 50], [100, 150]]),
        (2, [[50, 0], [150, 100]]),
        (3, [[150, 100], [50, 0]]),
        (4, [[100, 150], [0, 50]]),
        (5, [[0, 100], [50, 150]]),
        (6, [[100, 0], [150, 50]]),
        (7, [[150, 50], [100, 0]]),
        (8, [[50, 150], [0, 100]]),
        (99, [[0, 50], [100, 150]]),
    ],
)
def test_exif_orientation(orientation: int, expected: list[list[int]]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.uint8([[0, 50], [100, 150]]))
    upright = decode_rgb(encoded(image, exif=exif.tobytes()))
    assert [[grey for grey, *_ in row] for row in pixels(upright)] == expected


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_damaged_exif_does_not_spoil_the_image(file_format: str) -> None:
    start = b"Exif\x00\x00" if file_format == "JPEG" else b""
    image = Image.new("RGB", (4, 2), (9, 9, 9))
    assert decode_rgb(encoded(image, file_format, exif=start + b"not a tiff header")).size == (4, 2)
    tags = [
        (0x0112, 3, 1, struct.pack("<HH", 6, 0)),
        (0x0128, 2, 2, b"x\0\0\0"),
    ]  # a quarter turn; no number
    block = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHI", *t[:3]) + t[3] for t in tags)
    assert decode_rgb(encoded(image, file_format, exif=start + block + bytes(4))).size == (2, 4)


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(decode_rgb(data))[0][0] == [255, 0, 0]


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_is_recognised_and_decoded(file_format: str) -> None:
    data = encoded(Image.new("RGB", (16, 16), (255, 255, 255)), file_format)
    assert looks_like_image(data)
    assert np.asarray(decode_rgb(data)).min() > 250


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"no image at all", "no image of a known format"),
        (b"\x89PNG\r\n\x1a\nrubbish", "damaged header"),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:600], "truncated"),
    ],
)
def test_broken_images_say_why(data: bytes, reason: str) -> None:
    with pytest.raises(ImageDecodeError, match=reason):
        decode_rgb(data)


def test_a_bomb_is_refused_from_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageDecodeError, match=r"DecompressionBombError: Image size \(1600000000 pixels\) exceeds"):
        decode_rgb(png_header(40_000, 40_000))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # the host application may switch Pillow's limit off
    with pytest.raises(ImageDecodeError, match=r"40000 x 40000 px is more than the limit of 178,956,970 px"):
        decode_rgb(png_header(40_000, 40_000))


def test_large_but_allowed_images_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_task2vec.tasks.images._LARGE_PIXELS", 100)
    assert decode_rgb(encoded(Image.new("RGB", (15, 10)))).size == (15, 10)


def test_cells_of_an_image_column(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content := encoded(Image.new("RGB", (2, 2))))
    assert read_encoded(b"raw") == b"raw"
    assert read_encoded({"bytes": b"raw", "path": "elsewhere.png"}) == b"raw"
    assert read_encoded({"bytes": None, "path": str(tmp_path / "a.png")}) == content
    for cell in (None, {"bytes": None, "path": None}):
        with pytest.raises(ImageDecodeError, match="no image in this row"):
            read_encoded(cell)
    with pytest.raises(ImageDecodeError, match=r"^file not found$"):  # no folder in the reason
        read_encoded({"bytes": None, "path": str(tmp_path / "b.png")})
    for path in (str(tmp_path), "a\0.png"):
        with pytest.raises(ImageDecodeError, match="cannot be read"):
            read_encoded({"bytes": None, "path": path})


def test_store_keeps_pixels_within_its_budget_and_bytes_beyond() -> None:
    cells = [encoded(Image.new("RGB", (10, 10), (i, i, i))) for i in range(6)]
    stored = ImageStore(budget=3 * 100 * 2).store_all([*cells, b"broken"])
    assert isinstance(stored[-1], Unusable)
    assert "known format" in stored[-1].reason
    images = [image for image in stored if not isinstance(image, Unusable)]
    assert sum(isinstance(image.content, Image.Image) for image in images) == 2
    assert [image.rgb().getpixel((0, 0))[0] for image in images] == list(range(6))


@pytest.mark.parametrize("budget", [0, 2**30])
def test_sample_is_a_sequence_that_threads_share(budget: int) -> None:
    cells = [encoded(Image.new("RGB", (32, 32), (i, 0, 0))) for i in range(24)]
    sample = ImageSample(image for image in ImageStore(budget).store_all(cells) if not isinstance(image, str))
    assert len(sample) == 24
    assert [image.getpixel((0, 0))[0] for image in sample] == list(range(24))
    assert [image.getpixel((0, 0))[0] for image in sample[20:]] == [20, 21, 22, 23]
    assert sample[-1].getpixel((0, 0)) == (23, 0, 0)
    assert [image.getpixel((0, 0))[0] for image in sample.take([3, 1])] == [3, 1]
    with pytest.raises(IndexError):
        sample[24]
    barrier = threading.Barrier(4)

    def read_all(_: int) -> list[int]:
        barrier.wait(timeout=10)
        return [image.getpixel((0, 0))[0] for image in sample]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read_all, range(4))) == [list(range(24))] * 4


def test_to_rgb_gives_a_new_image_of_the_same_pixels() -> None:
    image = Image.new("RGB", (2, 2), (1, 2, 3))
    converted = to_rgb(image)
    assert converted is not image
    assert pixels(converted) == pixels(image)
