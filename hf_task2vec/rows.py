"""The rows of one split: all their labels, and access to single cells of the image column."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .columns import find_image_column, find_label_column
from .errors import ColumnError, LabelError, TaskError
from .hub_dataset import RemoteSplit
from .hub_shards import NotCheap
from .labels import Labels, is_missing, read_labels
from .other_tasks import annotation_files
from .sampling import ClassReservoir
from .sources import Source

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

logger = logging.getLogger(__name__)

MAX_SCAN_ROWS = 50_000
"""Rows of a stream that are looked at; what comes later is not part of the task."""

_PEEK_ROWS = 1024  # rows searched for a first value when only the bytes can tell whether a column holds images
_PEEK_STREAM_ROWS = 16  # the same for a stream, of which every row costs a download
_SPARE = 2  # a stream keeps this many times the sample, so that broken images can be replaced


@dataclass(frozen=True)
class SplitRows:
    """A split whose columns are known."""

    image_column: str
    label_column: str
    labels: Labels
    rows_with_image: np.ndarray | None
    """Rows whose cells can be read; None for all."""
    read: Callable[[Sequence[int]], list[Any]]
    """Returns the undecoded cells of the image column at some rows."""
    note: str | None = None
    """What is special about `rows_with_image`."""


def open_rows(
    source: Source, image_column: str | None, label_column: str | None, max_samples: int | None, seed: int
) -> SplitRows:
    """Find the columns of a split and read its labels.

    Of a stream, the one pass over at most `MAX_SCAN_ROWS` rows happens here: labels of all rows are kept, and the
    encoded images of a balanced random sample of twice `max_samples`.

    Raises
    ------
    TaskError
        If the split is empty; `ColumnError` and `LabelError` as in `columns` and `labels`.
    """
    import datasets

    data = source.data
    if isinstance(data, RemoteSplit):
        try:
            return _open_remote(source, data, image_column, label_column, max_samples, seed)
        except NotCheap as why:
            logger.info("%s is downloaded, not read in parts: %s", _where(source), why)
            data = data.load()
    if isinstance(data, datasets.IterableDataset):
        return _scan(source, data, image_column, label_column, max_samples, seed)
    return _open(source, data, image_column, label_column)


def _open_remote(
    source: Source,
    data: RemoteSplit,
    image_column: str | None,
    label_column: str | None,
    max_samples: int | None,
    seed: int,
) -> SplitRows:
    if max_samples is None:
        raise NotCheap("all images are asked for")
    if data.num_rows == 0:
        raise _empty(source)
    image_column, label_column = _find_columns(
        source, data.features, image_column, label_column, first_value=data.first_value, values=data.column
    )
    labels = _read_labels(source, data.column(label_column), data.features[label_column], label_column)
    cells = data.cells(image_column, labels, max_samples, seed)
    return SplitRows(image_column, label_column, labels, cells.rows, cells.read, cells.note)


def _open(source: Source, data: datasets.Dataset, image_column: str | None, label_column: str | None) -> SplitRows:
    if len(data) == 0:
        raise _empty(source)

    # Arrow cells are raw: nothing is decoded, whatever format or transform the user has set on the dataset.
    def column(name: str) -> pa.ChunkedArray:
        return data.select_columns([name]).with_format("arrow")[:].column(name)

    def first_value(name: str) -> Any:
        cells = data.select_columns([name]).with_format("arrow")[:_PEEK_ROWS].column(name)
        return next((cell.as_py() for cell in cells if cell.is_valid), None)

    image_column, label_column = _find_columns(
        source, data.features, image_column, label_column, first_value=first_value, values=column
    )
    labels = _read_labels(source, column(label_column), data.features[label_column], label_column)
    cells = data.select_columns([image_column]).with_format("arrow")

    def read(rows: Sequence[int]) -> list[Any]:
        return list(cells[list(rows)].column(image_column).to_pylist())

    return SplitRows(image_column, label_column, labels, None, read)


def _scan(
    source: Source,
    data: datasets.IterableDataset,
    image_column: str | None,
    label_column: str | None,
    max_samples: int | None,
    seed: int,
) -> SplitRows:
    import datasets
    import pyarrow as pa

    data = data.with_format(None)
    typed = data.features is not None
    features = data.features if typed else _features_of_first_rows(source, data)
    image_column, label_column = _find_columns(
        source,
        features,
        image_column,
        label_column,
        first_value=lambda name: next((row[name] for row in data.take(_PEEK_STREAM_ROWS) if row[name]), None),
        values=lambda name: None,
    )
    feature = features[label_column]
    if typed:
        data = data.select_columns([image_column, label_column])
        if getattr(features[image_column], "_type", None) == "Image":
            data = data.cast_column(image_column, datasets.Image(decode=False))
    values, cells = _one_pass(source, data, image_column, label_column, feature, max_samples, seed)
    try:
        column = pa.chunked_array([pa.array(values, datasets.Features({"label": feature}).arrow_schema.field(0).type)])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise LabelError(
            f"labels in column {label_column!r} of {source.dataset} are of mixed types: {error}"
        ) from error
    labels = _read_labels(source, column, feature, label_column)
    rows = np.fromiter(cells, dtype=np.int64)
    return SplitRows(image_column, label_column, labels, rows, lambda wanted: [cells[row] for row in wanted])


def _one_pass(
    source: Source,
    data: datasets.IterableDataset,
    image_column: str,
    label_column: str,
    feature: Any,
    max_samples: int | None,
    seed: int,
) -> tuple[list[Any], dict[int, Any]]:
    """Return the labels of all rows looked at, and cells of the image column by row."""
    rng = np.random.default_rng([seed, 1])  # not the stream of numbers that the sampler draws from
    reservoir = ClassReservoir[Any](None if max_samples is None else _SPARE * max_samples, rng)
    seen: Counter[Hashable] = Counter()
    values: list[Any] = []
    for position, row in enumerate(data):
        if position == MAX_SCAN_ROWS:
            logger.warning("only the first %d rows of the stream %s are used", MAX_SCAN_ROWS, source.dataset)
            break
        value = row[label_column]
        values.append(value)
        if not is_missing(value, feature):
            several = value if isinstance(value, (list, tuple)) else [value]
            seen.update(several)
            rarest = min(several, key=lambda label: seen[label], default=None)
            reservoir.add(rarest, position, partial(_encoded, row[image_column]))
    if not values:
        raise _empty(source)
    logger.info("%d rows of the stream %s scanned", len(values), source.dataset)
    return values, reservoir.items()


def _encoded(cell: Any) -> Any:
    """Return a cell that `images.read_encoded` reads: streams without types may yield pictures and arrays."""
    import datasets

    if cell is None or isinstance(cell, (dict, bytes, str)):
        return cell
    return datasets.Image().encode_example(cell)


def _features_of_first_rows(source: Source, data: datasets.IterableDataset) -> datasets.Features:
    import datasets

    rows = list(data.take(_PEEK_STREAM_ROWS))
    if not rows:
        raise _empty(source)
    return datasets.Dataset.from_list(rows).features


def _find_columns(
    source: Source,
    features: datasets.Features,
    image_column: str | None,
    label_column: str | None,
    *,
    first_value: Callable[[str], Any],
    values: Callable[[str], pa.ChunkedArray | None],
) -> tuple[str, str]:
    try:
        try:
            image_column = find_image_column(features, image_column, first_value)
        except ColumnError:  # `datasets` may have read the annotations in place of the images
            if source.folder is not None and (other := annotation_files(source.folder)):
                raise ColumnError(other) from None
            raise
        if source.folder is not None and label_column is None and list(features) == [image_column]:
            raise _unlabelled_folder(source)
        return image_column, find_label_column(features, label_column, image_column, values)
    except (ColumnError, LabelError) as error:
        raise type(error)(f"{_where(source)}: {error}") from error


def _read_labels(source: Source, column: pa.ChunkedArray, feature: Any, name: str) -> Labels:
    try:
        return read_labels(column, feature, name)
    except LabelError as error:
        others = f"; other splits: {', '.join(source.other_splits)}" if source.other_splits else ""
        raise LabelError(f"{_where(source)}, label column {name!r}: {error}{others}") from error


_WORDS = re.compile(r"[^a-z]+")  # what `datasets` looks for names of splits among


def _unlabelled_folder(source: Source) -> LabelError:
    from datasets.data_files import SPLIT_KEYWORDS

    assert source.folder is not None
    if other := annotation_files(source.folder):
        return LabelError(f"images without labels; {other}")
    inner = [path for pattern in ("*/", "*/*/") for path in source.folder.glob(pattern) if path.is_dir()]
    leaves = sorted(
        path.relative_to(source.folder).as_posix() for path in inner if path not in {p.parent for p in inner}
    )
    found = f"only one class folder, {leaves[0]!r}" if len(leaves) == 1 else "images without labels"
    words = {word for synonyms in SPLIT_KEYWORDS.values() for word in synonyms}
    if len(leaves) > 1 and (taken := [leaf for leaf in leaves if words & set(_WORDS.split(leaf.lower()))]):
        found += f" (subfolder {taken[0]!r} was taken for a split: if it is a class, rename it)"
    return LabelError(
        f"{found}; a folder needs at least two subfolders of images, one a class (or a metadata.csv with columns "
        f"file_name and label). Subfolders found: {', '.join(leaves) or 'none'}"
    )


def _empty(source: Source) -> TaskError:
    others = f"; other splits: {', '.join(source.other_splits)}" if source.other_splits else ""
    return TaskError(f"{_where(source)} has no rows{others}")


def _where(source: Source) -> str:
    return f"split {source.split!r} of {source.dataset!r}" if source.split else f"{source.dataset!r}"
