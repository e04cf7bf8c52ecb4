"""Small image datasets as the Parquet files of a Hub repository, in the layouts that writers give them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features
from datasets import Image as ImageFeature
from PIL import Image

CLASSIC: dict[str, Any] = {"row_group_size": 50}
ONE_PAGE: dict[str, Any] = {}
INDEXED: dict[str, Any] = {"use_content_defined_chunking": True, "write_page_index": True, "use_dictionary": False}
MIXED: dict[str, Any] = {"use_content_defined_chunking": True, "write_page_index": True}


def picture(value: int, size: int, rng: np.random.Generator) -> bytes:
    """Return a PNG that tells its number by its colour, with noise behind it."""
    stream = io.BytesIO()
    Image.new("RGB", (2, 2), (value % 256, value // 256, 0)).save(stream, "PNG")
    return stream.getvalue() + rng.bytes(size)


def number(image: Image.Image) -> int:
    red, green, _ = image.getpixel((0, 0))
    return red + 256 * green


def table(labels: list[Any], *, size: int = 4000, feature: Any = None, broken: tuple[int, ...] = ()) -> pa.Table:
    rng = np.random.default_rng(0)
    feature = feature or ClassLabel(num_classes=1 + max(labels))
    features = Features({"image": ImageFeature(), "label": feature})
    sizes = rng.integers(size // 2, 3 * size // 2, len(labels)).tolist()
    cells = [
        {"bytes": b"broken" if row in broken else picture(row, extra, rng), "path": f"{row}.png"}
        for row, extra in enumerate(sizes)
    ]
    kind = features.arrow_schema.field("image").type
    columns = {"image": pa.array(cells, kind), "label": pa.array(labels, features.arrow_schema.field("label").type)}
    return pa.table(columns, schema=features.arrow_schema)


def shards(data: pa.Table, count: int, layout: dict[str, Any], split: str = "train") -> dict[str, bytes]:
    files = {}
    for shard, start in enumerate(range(0, len(data), len(data) // count)):
        stream = io.BytesIO()
        pq.write_table(data.slice(start, len(data) // count), stream, **layout)
        files[f"data/{split}-{shard:05d}-of-{count:05d}.parquet"] = stream.getvalue()
    return files


def sorted_labels(classes: int, each: int) -> list[int]:
    return [label for label in range(classes) for _ in range(each)]
