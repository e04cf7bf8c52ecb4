"""Datasets of pictures that tell their number by their colour, and the files they are kept in."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

ABC = ClassLabel(names=["a", "b", "c"])
TRAIN, TEST = "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"


def png(value: int) -> bytes:
    """A picture that tells its number by its colour."""
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (value % 256, value // 256, 0)).save(stream, "PNG")
    return stream.getvalue()


def wide_png(values: np.ndarray) -> bytes:
    """A PNG of 16-bit colours, which Pillow does not write; shape (H, W, 3)."""
    height, width, _ = values.shape
    data = values.astype(">u2").tobytes()
    rows = [data[i : i + 6 * width] for i in range(0, len(data), 6 * width)]
    # The second filter, by which most files are stored: differences to the pixel before.
    filtered = b"".join(
        b"\1" + row[:6] + bytes((b - a) % 256 for a, b in zip(row, row[6:], strict=False)) for row in rows
    )
    return _png(width, height, 16, filtered)


def number(image: Image.Image) -> int:
    red, green, _ = image.getpixel((0, 0))
    return red + 256 * green


def make(labels: Sequence[Any], feature: Any = ABC, *, broken: Sequence[int] = (), **columns: Any) -> Dataset:
    cells = [{"bytes": b"broken" if row in broken else png(row), "path": None} for row in range(len(labels))]
    features = Features({"image": ImageFeature(), "label": feature} | {name: f for name, (_, f) in columns.items()})
    data = {"image": cells, "label": list(labels)} | {name: values for name, (values, _) in columns.items()}
    return Dataset.from_dict(data, features=features)


def parquet(data: Dataset) -> bytes:
    stream = io.BytesIO()
    data.to_parquet(stream)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds no pixel."""
    return _png(width, height, 8, b"")


def _png(width: int, height: int, bits: int, data: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
