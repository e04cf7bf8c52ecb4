"""Images made to exhaust a reader: each ends in a record of a broken image, soon and in little memory."""

from __future__ import annotations

import io
import logging
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import pytest
from PIL import Image

from hf_task2vec.errors import ImageDecodeError
from hf_task2vec.tasks import images
from hf_task2vec.tasks.images import MAX_BYTES, ImageStore, decode_rgb, read_encoded
from hf_task2vec.tasks.task import Task
from tests.support.hub import HubServer


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bilevel_png(side: int) -> bytes:
    """A whole, valid PNG of black pixels: 50,000 px a side are 300 kB as a file and 7.5 GB as RGB."""
    packer, row = zlib.compressobj(9), bytes(1 + (side + 7) // 8)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def endless_gif(frames: int) -> bytes:
    frame = b"\x2c" + struct.pack("<4HB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<2H3B", 1, 1, 0x80, 0, 0) + bytes(6) + frame * frames + b"\x3b"


def icon(content: bytes) -> bytes:
    """An icon whose table promises 16 x 16 px."""
    return struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(content), 22) + content


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def noise(size: int = 32) -> bytes:
    return encoded(Image.effect_noise((size, size), 60), "JPEG")


def sparse(path: Path, size: int, start: bytes = b"") -> None:
    with path.open("wb") as handle:
        handle.write(start)
        handle.truncate(size)


# Run in a process of its own, where the peak of memory is that of the reading.
_READ = """
import resource, sys
from pathlib import Path
import datasets
from hf_task2vec.tasks.task import Task
from hf_task2vec.tasks.images import decode_rgb
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
task = Task.from_dataset(sys.argv[1], max_samples=None)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
print(len(task), grown)
print("\\n".join(image.reason for image in task.skipped))
"""


def test_a_folder_of_traps_is_read_in_bounded_memory(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            (folder / name / f"{i}.jpg").write_bytes(noise())
    (folder / "cats" / "bomb.png").write_bytes(bilevel_png(50_000))
    (folder / "cats" / "icon.png").write_bytes(icon(bilevel_png(50_000)))
    (folder / "cats" / "endless.gif").write_bytes(endless_gif(1_000_000))
    (folder / "cats" / "truncated.jpg").write_bytes(noise(200)[:2000])
    (folder / "cats" / "text.jpg").write_bytes(b"no image at all. " * 20_000_000)  # 340 MB
    sparse(folder / "cats" / "huge.jpg", MAX_BYTES + 1, b"\xff\xd8\xff\xe0")
    result = subprocess.run(
        [sys.executable, "-c", _READ, str(folder)], capture_output=True, text=True, check=False, timeout=200
    )
    assert result.returncode == 0, result.stderr
    first, *reasons = result.stdout.splitlines()
    count, grown = map(int, first.split())
    assert count == 9, "the good ones, and the first frame of the animation"
    assert grown < 300, f"{grown} MiB: the bomb alone would be 7,500, the text 340"
    expected = ["2500000000 pixels", "truncated", "no image of a known format", "larger than"]
    assert all(any(text in reason for reason in reasons) for text in expected), reasons
    assert len(reasons) == 5
    assert not any(str(tmp_path) in reason for reason in reasons)


def test_traps_in_parquet_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import datasets

    traps = [bilevel_png(50_000), icon(bilevel_png(20_000)), noise(200)[:2000], b"no image at all. " * 100_000]
    cells = [{"bytes": data, "path": None} for data in [*traps, *(noise() for _ in range(8))]]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cats", "dogs"])})
    rows = {"image": cells, "label": [i % 2 for i in range(len(cells))]}
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / "train.parquet")
    with caplog.at_level(logging.WARNING, "hf_task2vec"):
        task = Task.from_dataset(tmp_path / "data", max_samples=None)
        assert len(task) == 8
    assert sorted(image.row for image in task.skipped) == [0, 1, 2, 3]
    assert "4 broken images of data skipped" in caplog.text


def test_nothing_but_traps(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "1.png").write_bytes(bilevel_png(30_000))
    with pytest.raises(ImageDecodeError, match=r"all 2 images of 'photos' are broken \(.*Image size \(900000000"):
        len(Task.from_dataset(tmp_path / "photos"))


def test_the_picture_inside_an_icon_is_measured_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.new("RGBA", (64, 64), (200, 0, 0, 255))
    icons = [encoded(picture, "ICO", sizes=[(64, 64)], bitmap_format=kind) for kind in ("png", "bmp")]
    assert [decode_rgb(data).size for data in icons] == [(64, 64)] * 2
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for data in icons:
        with pytest.raises(ImageDecodeError, match="DecompressionBombError: Image size"):
            decode_rgb(data)
    with pytest.raises(ImageDecodeError):
        decode_rgb(struct.pack("<3H", 0, 1, 0))  # an icon without any picture


def test_only_ordinary_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero", tmp_path):
        with pytest.raises(ImageDecodeError, match="cannot be read: no regular file"):
            read_encoded(str(path))


def test_a_long_file_that_is_no_image_is_not_read(tmp_path: Path) -> None:
    sparse(tmp_path / "text.jpg", 500_000_000, b"hello")
    tracemalloc.start()
    try:
        with pytest.raises(ImageDecodeError, match="no image of a known format"):
            read_encoded(str(tmp_path / "text.jpg"))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    sparse(tmp_path / "huge.png", MAX_BYTES + 1, b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageDecodeError, match=r"of 715,827,881 bytes or more is larger than the limit of 715,827,880"):
        read_encoded(str(tmp_path / "huge.png"))
    (stored,) = ImageStore().store_all([{"bytes": None, "path": str(tmp_path / "huge.png")}])
    assert "larger than the limit" in str(stored)


def test_a_remote_file_is_read_no_further_than_the_limit(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"\x89PNG\r\n\x1a\n" + bytes(3 * 2**20)
    hub.create_dataset("org/images", {"a.png": data})
    assert read_encoded("hf://datasets/org/images/a.png") == data
    monkeypatch.setattr(images, "MAX_BYTES", 2**20)
    with pytest.raises(ImageDecodeError, match="is larger than the limit of 1,048,576 bytes"):
        read_encoded("hf://datasets/org/images/a.png")
