"""The rows of one split: all their labels, the sample drawn from them, and its undecoded images."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import ColumnError, LabelError, TaskError
from hf_task2vec.tasks.columns import find_image_column, find_label_column
from hf_task2vec.tasks.labels import Labels, read_labels
from hf_task2vec.tasks.parquet.shards import NotCheap
from hf_task2vec.tasks.sampling import Draw

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from hf_task2vec.tasks.parquet.remote import RemoteSplit
    from hf_task2vec.tasks.sources import Source

logger = logging.getLogger(__name__)

_PEEK_ROWS = 1024  # rows searched for a first value when only the bytes can tell whether a column holds images
_READ_AT_ONCE = 64  # rows whose cells are in memory at a time
_STREAMED, _LEAST_STREAMED = 8, 1024  # rows taken of a stream for each of the sample, and at least


@dataclass(frozen=True)
class Rows:
    """The rows of a split whose columns are known."""

    image_column: str
    label_column: str
    labels: Labels
    draw: Draw
    """The sample."""
    read: Callable[[Sequence[int]], Iterator[Any]]
    """Returns the undecoded cells of the image column at some rows, a few at a time."""
    note: str | None = None
    """Which rows the sample was drawn from, where not from all."""


def open_rows(
    source: Source, image_column: str | None, label_column: str | None, max_samples: int | None, seed: int
) -> Rows:
    """Find the columns of a split, read its labels and draw a sample."""
    import datasets

    if source.remote is not None:
        try:
            if max_samples is None:
                raise NotCheap("all images are asked for")
            images, names, labels = _find(source, source.remote, image_column, label_column)
            return Rows(images, names, labels, *source.remote.sample(images, labels, max_samples, seed))
        except NotCheap as why:
            logger.info("%s is downloaded, not read in parts: %s", source, why)
    data, note = source.load(), None
    if isinstance(data, datasets.IterableDataset):
        data, note = _taken(source, data, max_samples, seed)
    local = _Local(data)
    images, names, labels = _find(source, local, image_column, label_column)
    draw = Draw(*labels.sampling_pairs(), max_samples, seed)
    return Rows(images, names, labels, draw, local.reader(images), note)


class _Local:
    """The columns of a dataset. Arrow cells are raw: nothing is decoded, whatever the user's format or transform."""

    def __init__(self, data: datasets.Dataset) -> None:
        self._data = data
        self.features = data.features

    def __len__(self) -> int:
        return len(self._data)

    def column(self, name: str) -> pa.ChunkedArray:
        return self._arrow(name)[:].column(name)

    def first_value(self, name: str) -> Any:
        cells = self._arrow(name)[:_PEEK_ROWS].column(name)
        return next((cell.as_py() for cell in cells if cell.is_valid), None)

    def reader(self, name: str) -> Callable[[Sequence[int]], Iterator[Any]]:
        cells = self._arrow(name)

        def read(rows: Sequence[int]) -> Iterator[Any]:
            for start in range(0, len(rows), _READ_AT_ONCE):
                yield from cells[list(rows[start : start + _READ_AT_ONCE])].column(name).to_pylist()

        return read

    def _arrow(self, name: str) -> datasets.Dataset:
        return self._data.select_columns([name]).with_format("arrow")


def _find(
    source: Source, data: _Local | RemoteSplit, image_column: str | None, label_column: str | None
) -> tuple[str, str, Labels]:
    if len(data) == 0:
        raise TaskError(f"{source} has no rows{source.advice}")
    features = data.features
    try:
        image_column = find_image_column(features, image_column, data.first_value)
        if source.folder is not None and label_column is None and list(features) == [image_column]:
            raise _unlabelled_folder(source)
        label_column = find_label_column(features, label_column, image_column, data.column)
    except (ColumnError, LabelError) as error:
        raise type(error)(f"{source}: {error}") from error
    try:
        labels = read_labels(data.column(label_column), features[label_column], label_column)
    except LabelError as error:
        raise LabelError(f"{source}, label column {label_column!r}: {error}{source.advice}") from error
    return image_column, label_column, labels


def _taken(
    source: Source, stream: datasets.IterableDataset, max_samples: int | None, seed: int
) -> tuple[datasets.Dataset, str | None]:
    """Return rows of a stream, images undecoded, as a dataset in memory; and a note if there may be more."""
    import datasets
    import pyarrow as pa

    stream = stream.with_format(None)
    if stream.features is not None:
        stream = stream.decode(False)
    wanted = None if max_samples is None else max(_STREAMED * max_samples, _LEAST_STREAMED)
    if wanted is not None:
        stream = stream.shuffle(seed=seed, buffer_size=wanted).take(wanted)
    rows = list(stream)
    try:
        data = datasets.Dataset.from_list(rows, features=stream.features)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise LabelError(f"the rows of {source} are of mixed types: {error}") from error
    logger.info("%d rows of the stream %s taken", len(rows), source.dataset)
    if len(rows) != wanted:
        return data, None
    return data, f"drawn from {len(rows):,} rows of the stream, shuffled {wanted:,} at a time"


_WORDS = re.compile(r"[^a-z]+")  # what `datasets` looks for names of splits among


def _unlabelled_folder(source: Source) -> LabelError:
    from datasets.data_files import SPLIT_KEYWORDS

    assert source.folder is not None
    inner = [path for pattern in ("*/", "*/*/") for path in source.folder.glob(pattern) if path.is_dir()]
    parents = {path.parent for path in inner}
    leaves = sorted(path.relative_to(source.folder).as_posix() for path in inner if path not in parents)
    found = f"only one class folder, {leaves[0]!r}" if len(leaves) == 1 else "images without labels"
    words = {word for synonyms in SPLIT_KEYWORDS.values() for word in synonyms}
    if len(leaves) > 1 and (taken := [leaf for leaf in leaves if words & set(_WORDS.split(leaf.lower()))]):
        found += f" (subfolder {taken[0]!r} was taken for a split: if it is a class, rename it)"
    return LabelError(
        f"{found}; a folder needs at least two subfolders of images, one a class (or a metadata.csv with columns "
        f"file_name and label). Subfolders found: {', '.join(leaves) or 'none'}"
    )
