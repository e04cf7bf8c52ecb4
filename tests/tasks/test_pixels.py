"""What pictures mean: one range of values for a sample, equal pictures, and what was dropped, said."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from hf_task2vec.errors import ImageDecodeError
from hf_task2vec.probes.probe import PictureTransform
from hf_task2vec.tasks.task import Task
from tests.support.pictures import wide_png

DEPTHS = ((8, np.uint8), (10, np.uint16), (12, np.uint16), (16, np.uint16))


def greys(count: int = 8) -> list[np.ndarray]:
    """Pictures in [0, 1]."""
    rng = np.random.default_rng(0)
    return [rng.random((16, 16)) * (1.0 if i == 0 else 0.9) for i in range(count)]


def task(pictures: Sequence[np.ndarray | bytes], labels: Sequence[str] | None = None, form: str = "TIFF") -> Task:
    cells = []
    for picture in pictures:
        stream = io.BytesIO()
        if isinstance(picture, np.ndarray):
            Image.fromarray(picture).save(stream, form)
        cells.append({"bytes": picture if isinstance(picture, bytes) else stream.getvalue(), "path": None})
    features = Features({"image": ImageFeature(), "label": Value("string")})
    labels = labels or ["a", "b"] * (len(cells) // 2)
    return Task.from_dataset(Dataset.from_dict({"image": cells, "label": list(labels)}, features=features))


def as_shown(made: Task) -> list[Any]:
    """The grey levels of the pictures, in the order of the rows."""
    return [np.asarray(made.images[i])[..., 0].astype(float) for i in np.argsort(made.indices)]


@pytest.mark.parametrize(("bits", "kind"), DEPTHS)
def test_pictures_of_any_depth_look_as_in_8_bits(bits: int, kind: type) -> None:
    pictures = greys()
    pictures[0].flat[0] = 1.0
    found = task([np.rint(p * (2**bits - 1)).astype(kind) for p in pictures], form="PNG")
    for ours, p in zip(as_shown(found), pictures, strict=True):
        assert np.abs(ours - p * 255).max() < 1.5
    assert (f"values of {bits} bits" in found.read) == (bits > 8)


@pytest.mark.parametrize("top", [1.0, 255.0])
@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_a_hair_beyond_the_range_in_some_pictures_darkens_none(top: float, kind: type) -> None:
    if kind is np.int32 and top == 1.0:
        pytest.skip("integers have no such range")
    pictures = greys()
    beyond = [p * top * (1.02 if i % 2 else 1.0) for i, p in enumerate(pictures)]
    for ours, p in zip(as_shown(task([p.astype(kind) for p in beyond])), beyond, strict=True):
        assert np.abs(ours - (p / top * 255).clip(0, 255)).max() < 1.5


def test_a_dark_picture_stays_dark_beside_bright_ones() -> None:
    pictures = [np.rint(p * 4095 / (8 if i == 3 else 1)).astype(np.uint16) for i, p in enumerate(greys())]
    assert as_shown(task(pictures))[3].max() < 40


def test_the_depth_that_a_file_states_holds() -> None:
    dark = [np.rint(p * 900).astype(np.uint16) for p in greys()]
    stream, cells = io.BytesIO(), []
    for p in dark:
        stream = io.BytesIO()
        Image.fromarray(p).save(stream, "TIFF", tiffinfo={281: 4095})
        cells.append(stream.getvalue())
    found = task(cells)
    assert "values of 12 bits" in found.read
    assert max(p.max() for p in as_shown(found)) < 60


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_colours_of_more_than_8_bits_keep_them(bits: int, tmp_path: Path) -> None:
    top = 2**bits - 1
    pictures = [np.rint(np.random.default_rng(i).random((9, 7, 3)) * top).astype(np.uint16) for i in range(8)]
    pictures[0][0, 0] = top
    found = task([wide_png(p) for p in pictures])
    assert f"values of {bits} bits" in found.read
    transform = PictureTransform(lambda image: torch.from_numpy(np.asarray(image).copy()), found.sample.values)
    for image, row in zip(found.images, found.indices, strict=True):
        assert np.abs(np.asarray(image) - pictures[row] / top * 255).max() <= 0.51
        path = tmp_path / f"{row}.png"
        path.write_bytes(wide_png(pictures[row]))
        with Image.open(path) as opened:  # as the transform of a loaded checkpoint is given it
            assert np.array_equal(transform(opened).numpy(), np.asarray(image))
            assert np.array_equal(np.asarray(opened), pictures[row] >> 8)


def test_heic_is_read_where_its_package_is_installed(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    known = Image.registered_extensions()
    for i in range(8):
        picture = Image.new("RGB", (64, 48), (30 * i, 255 - 30 * i, 99))
        picture.paste("white", (0, 0, 64, 6))
        picture.getexif()[0x0112] = 6  # on its side
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        with (tmp_path / "ab"[i % 2] / f"{i}{'.HEIC' if i > 1 else ''}").open("wb") as file:
            heif.encode("RGB", (64, 48), picture.tobytes(), file, exif=picture.getexif().tobytes())
    found = Task.from_dataset(tmp_path)
    assert (len(found), found.reading.left_out, found.images[0].size) == (8, {}, (48, 64))
    assert np.asarray(found.images[0])[:, -3:].min() > 230
    assert Image.registered_extensions() == known


def test_heic_names_what_reads_it_where_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_task2vec.tasks.images.reads_heic", lambda: False)
    phone = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    with pytest.raises(ImageDecodeError, match=r"HEIC; pip install hf-task2vec\[heic\] to read HEIC, or convert"):
        len(task([phone, phone]))


def test_one_broken_float_picture_spoils_no_other() -> None:
    pictures = [p.astype(np.float32) for p in greys()]
    pictures[5] = pictures[5] * 1e9
    assert np.abs(as_shown(task(pictures))[0] - pictures[0] * 255).max() < 1.5


def test_a_subset_keeps_the_range_of_the_sample() -> None:
    pictures = [np.rint(p * 4095 / (8 if i else 1)).astype(np.uint16) for i, p in enumerate(greys())]
    whole = task(pictures)
    at = int(np.flatnonzero(whole.indices == 2)[0])
    assert np.array_equal(np.asarray(whole.subset([at]).images[0]), np.asarray(whole.images[at]))


def test_what_was_dropped_is_said() -> None:
    rng = np.random.default_rng(0)
    rgba = [rng.integers(0, 255, (8, 8, 4), dtype=np.uint8) for _ in range(4)]
    assert "transparency laid on white in 4" in task(rgba, form="PNG").read
    opaque = [np.dstack([p[..., :3], np.full((8, 8), 255, np.uint8)]) for p in rgba]
    assert "transparency" not in task(opaque, form="PNG").read


def test_pictures_of_one_colour_are_counted() -> None:
    pictures = [np.rint(p * 255).astype(np.uint8) for p in greys()]
    pictures[2][:], pictures[3][:] = 7, 8
    assert task(pictures).warnings == ("2 of 8 pictures are nearly one colour, and show nothing",)


def test_equal_pictures_are_drawn_once_whatever_their_file() -> None:
    pictures = [np.rint(p * 255).astype(np.uint8) for p in greys(4)]
    files = []
    for form in ("PNG", "BMP"):
        for p in pictures:
            stream = io.BytesIO()
            Image.fromarray(p).save(stream, form)
            files.append(stream.getvalue())
    found = task(files, labels=["a", "b"] * 4)
    assert len(found) == 4
    assert found.warnings == ("drawn once: 4 pictures that equal others pixel by pixel",)
    copies = [files[0]] * 20 + files[1:4]
    drawn = Task.from_dataset(
        Dataset.from_dict(
            {"image": [{"bytes": b, "path": None} for b in copies], "label": ["a"] * 20 + ["b"] * 3},
            features=Features({"image": ImageFeature(), "label": Value("string")}),
        ),
        max_samples=4,
    )
    assert len(set(drawn.indices.tolist())) == len(drawn)
    assert np.bincount(drawn.labels).tolist() == [1, 3], "the place of a copy goes to another picture"


def test_pictures_under_several_labels_are_counted() -> None:
    pictures = [np.rint(p * 255).astype(np.uint8) for p in greys(6)]
    found = task([*pictures, *pictures[:4]], labels=["a", "a", "a", "b", "b", "b", "b", "b", "b", "a"])
    assert "under several labels, of which one must be wrong, occur 4 pictures of the sample" in found.warnings


def test_classes_of_the_same_picture_are_an_error_that_says_so() -> None:
    picture = np.rint(greys(1)[0] * 255).astype(np.uint8)
    with pytest.raises(ImageDecodeError, match=r"under several labels.*only one class is left"):
        len(task([picture, picture]))


def test_the_depth_that_a_png_states_holds() -> None:
    """In a chunk of its own (sBIT): 10 bits in 16."""

    def stated(picture: np.ndarray) -> bytes:
        data = wide_png(np.dstack(3 * [np.round(picture * 1023).astype(np.uint16)]))
        kind, chunk = b"sBIT", bytes([10])
        at = data.index(b"IDAT") - 4
        return data[:at] + struct.pack(">I", 1) + kind + chunk + struct.pack(">I", zlib.crc32(kind + chunk)) + data[at:]

    dark = [0.5 * picture for picture in greys()]
    shown = as_shown(task([stated(picture) for picture in dark]))
    assert max(picture.max() for picture in shown) == pytest.approx(127.5, abs=2.0)


def test_of_several_pages_the_first_is_read() -> None:
    pages = [Image.fromarray((255 * picture).astype(np.uint8)) for picture in greys(2)]
    stream = io.BytesIO()
    pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:])
    others = [(255 * picture).astype(np.uint8) for picture in greys(8)[1:]]
    assert "the first page only in 1" in task([stream.getvalue(), *others]).read
