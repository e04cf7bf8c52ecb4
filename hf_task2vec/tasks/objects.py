"""Objects that people hold: data frames, tables, torch datasets, arrays, lists of pairs; each is read as columns."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import ColumnError, ImageDecodeError, TaskError
from hf_task2vec.tasks.columns import Feature, kind_of, of_schema
from hf_task2vec.tasks.rows import Listed
from hf_task2vec.tasks.text import listed

if TYPE_CHECKING:
    from PIL import Image

_Columns = tuple[Mapping[str, Sequence[Any]], Mapping[str, Any]]
"""Cells by column, and the types that are known of them."""
_IMAGE = {"image": Feature("Image")}


def read_object(dataset: Any) -> Listed | None:
    """Return the rows of an object, None if it is no dataset."""
    import pyarrow as pa

    found = _columns(dataset)
    if found is None:
        return None
    columns, known = found
    images = [name for name in columns if kind_of(known.get(name)) == "Image"]
    images = images or [name for name, cells in columns.items() if _looks_like_images(cells)]
    if not images:
        raise ColumnError(
            f"no image column in the {type(dataset).__name__}; columns found: {listed(columns)}. What would work: a "
            "column of paths, bytes or PIL images"
        )
    image = min(images, key=lambda name: name.lower() not in ("image", "img", "path", "file_name", "filename"))

    def as_arrow(cells: Any) -> Any:
        try:
            return cells if isinstance(cells, pa.ChunkedArray) else pa.array(map(_plain, cells), from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return pa.array([None if _is_missing(cell) else str(cell) for cell in cells])

    table = pa.table({name: as_arrow(cells) for name, cells in columns.items() if name != image})
    features = {**of_schema(table.schema), **known, image: Feature("Image")}
    return Listed(table, features, columns[image].__getitem__, as_cell)


def _columns(dataset: Any) -> _Columns | None:
    """Return an object as columns, None if it is no dataset.

    Labels are taken from where torchvision's datasets keep them; only where there is no such place, images are opened.
    """
    import pyarrow as pa

    if hasattr(dataset, "columns") and hasattr(dataset, "to_dict"):  # pandas, whose cells may be any objects
        return {str(name): list(dataset[name]) for name in dataset.columns}, {}
    if hasattr(dataset, "__arrow_c_stream__"):  # Arrow, polars, DuckDB …
        try:
            table = pa.table(dataset)
        except pa.ArrowInvalid:  # a single column
            return None
        return {name: table.column(name) for name in table.column_names}, of_schema(table.schema)
    if isinstance(dataset, dict):
        return {str(name): list(cells) for name, cells in dataset.items()}, {}
    if not _is_map(dataset) or not len(dataset):
        return None
    if isinstance(dataset, tuple) and len(dataset) == 2 and all(map(_is_map, dataset)):  # (X, y)
        arrays = all(hasattr(part, "shape") for part in dataset)
        if len(dataset[0]) == len(dataset[1]) > (0 if arrays else 2):
            return {"image": dataset[0], "label": dataset[1]}, _IMAGE
    if getattr(dataset, "datasets", None) and hasattr(dataset, "cumulative_sizes"):
        return _joined([_columns(part) for part in dataset.datasets])
    names = tuple(str(name) for name in getattr(dataset, "classes", ()))
    changed = getattr(dataset, "target_transform", None)
    # Where labels are changed, the classes are others than the names say.
    known = _IMAGE | ({"label": Feature("ClassLabel", names=names)} if names and changed is None else {})
    if isinstance(samples := getattr(dataset, "samples", None), list) and samples and len(samples[0]) == 2:
        images, labels = zip(*samples, strict=True)
        return {"image": images, "label": labels if changed is None else [*map(changed, labels)]}, known
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        if (inner := _columns(dataset.dataset)) is None:
            return None
        return {name: [cells[i] for i in dataset.indices] for name, cells in inner[0].items()}, inner[1]
    for attribute in ("targets", "labels", "_labels"):
        found: Any = getattr(dataset, attribute, ())
        if hasattr(found, "__len__") and len(found) == len(dataset):
            ways = [partial(_item, dataset, i, 0) for i in range(len(dataset))]
            return {"image": ways, "label": list(found) if changed is None else [*map(changed, found)]}, known
    return _items(dataset, known)


def _items(dataset: Any, known: Mapping[str, Any]) -> _Columns | None:
    """Return items that are dictionaries, or begin with an image and its label, in columns; of an image a way to it."""
    first, image = dataset[0], None
    if isinstance(first, Mapping):
        image = next((name for name, part in first.items() if _is_drawn(part) or isinstance(part, bytes)), None)
        parts, known = {name: name for name in first}, {}
    elif isinstance(first, (list, tuple)):
        image = next((i for i, part in enumerate(first) if _is_drawn(part)), 0)
        label = next((i for i, part in enumerate(first) if i > image and not _is_drawn(part)), None)
        if label is None or (isinstance(dataset, list) and any(len(row) != len(first) for row in dataset)):
            return None
        parts = {"image": image, "label": label}
    else:
        return None
    columns: dict[str, list[Any]] = {name: [] for name in parts}
    for i in range(len(dataset)):
        item = dataset[i] if isinstance(first, Mapping) else dict(enumerate(dataset[i]))
        for name, part in parts.items():
            columns[name].append(partial(_item, dataset, i, part) if part == image else item.get(part))
    return columns, known


def _item(dataset: Any, index: int, part: Any) -> Any:
    return dataset[index][part]


def _joined(parts: Sequence[_Columns | None]) -> _Columns | None:
    found = [part for part in parts if part is not None]
    names = {known["label"].names if "label" in known else () for _, known in found}
    if len(names) > 1:
        first, second = (", ".join(classes[:4]) or "no names" for classes in sorted(names)[:2])
        raise TaskError(
            f"datasets of different classes are put together ({first}; {second}), whose numbers mean different things; "
            "pass them as (image, name of the class)"
        )
    if len(found) < len(parts):
        return None
    return {name: [*chain.from_iterable(cells[name] for cells, _ in found)] for name in found[0][0]}, found[0][1]


def _is_map(dataset: Any) -> bool:
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and not isinstance(dataset, (str, bytes))


def _looks_like_images(cells: Sequence[Any]) -> bool:
    first = next((cell for cell in map(_plain, cells[:100]) if not _is_missing(cell)), None)
    named = isinstance(first, (str, os.PathLike)) and re.search(r"(?i)\.\w{2,5}$|://", os.fspath(first))
    return bool(named) or isinstance(first, (bytes, dict)) or callable(first) or _is_drawn(first)


def _plain(cell: Any) -> Any:
    """Return a cell of Arrow, numpy or torch as Python has it, but for pictures."""
    if isinstance(cell, dict):
        return {name: _plain(part) for name, part in cell.items()}
    if hasattr(cell, "as_py"):
        return cell.as_py()
    return cell.tolist() if hasattr(cell, "tolist") and not _is_drawn(cell) else cell


def _is_drawn(value: Any) -> bool:
    return hasattr(value, "getbands") or getattr(value, "ndim", 0) in (2, 3)


def _is_missing(cell: Any) -> bool:
    """Return whether pandas has no value here."""
    return cell is None or type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and cell != cell)


def as_cell(image: Any) -> Any:
    """Return an image in memory, or a way to it, as `images.read_encoded` takes it."""
    image = image() if callable(image) else image
    image = image.as_py() if hasattr(image, "as_py") else image
    if isinstance(image, (bytes, dict)) or _is_missing(image):
        return None if _is_missing(image) else image
    if isinstance(image, (str, os.PathLike)):
        return {"path": os.fspath(image)}
    from PIL import Image

    image = image if isinstance(image, Image.Image) else _drawn(image)
    stream = io.BytesIO()
    image.save(stream, "TIFF" if image.mode in ("F", "CMYK", "YCbCr", "LAB", "HSV") else "PNG")
    return stream.getvalue()


def _drawn(pixels: Any) -> Image.Image:
    """Return an array as a picture; greys of any numbers keep them, since the sample shows what they mean."""
    import numpy as np
    from PIL import Image

    values = np.asarray(pixels)
    if values.ndim == 3 and values.shape[0] in (1, 3) and values.shape[2] not in (1, 3):
        values = values.transpose(1, 2, 0)  # torch has the channels first
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if values.ndim not in (2, 3) or not values.size or values.dtype.kind not in "biuf":
        raise ImageDecodeError(
            f"an array of {values.dtype} and shape {values.shape} is no image; reshape to (height, width) or "
            "(height, width, 3)"
        )
    values = values * np.uint8(255) if values.dtype.kind == "b" else values
    low, high = values.min(), values.max()
    if values.ndim == 2 and low >= 0 and values.dtype.itemsize > 1:
        return Image.fromarray(values.astype("uint16" if values.dtype == np.uint16 else "float32"))
    if values.dtype.kind == "f" and low >= 0 and high <= 255:
        values = np.rint(values * (255 if high <= 1 else 1))
    elif values.dtype.kind == "f" or low < 0 or high > 255:
        raise ImageDecodeError(
            f"an array of {values.dtype} from {low:.3g} to {high:.3g} is no image; pass the dataset without its "
            "transform"
        )
    return Image.fromarray(values.astype(np.uint8))
