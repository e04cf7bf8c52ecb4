"""The rows of one split: all their labels, the sample drawn from them, and its undecoded images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hf_task2vec.errors import ColumnError, LabelError, TaskError
from hf_task2vec.tasks.columns import BOOKKEEPING, WEBDATASET_NAMES, LabelChoice, find_image_column, find_label_column
from hf_task2vec.tasks.labels import Labels, Warn, read_flags, read_labels
from hf_task2vec.tasks.parquet.split import ParquetSplit, UseDownload
from hf_task2vec.tasks.sampling import Draw, Drawn, Read

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from hf_task2vec.tasks.source import Sampling, Source

logger = logging.getLogger(__name__)

_PEEK_ROWS = 1024  # rows searched for a first value when only the bytes can tell whether a column holds images
_READ_AT_ONCE = 64  # rows whose cells are in memory at a time
_STREAMED, _LEAST_STREAMED = 8, 1024  # rows taken of a stream for each of the sample, and at least


@dataclass(frozen=True)
class Rows:
    """The rows of a split whose columns are known, and the sample drawn of them."""

    image_column: str
    label_column: str
    labels: Labels
    draw: Draw
    read: Read
    note: str | None  # which rows the sample was drawn from, where not from all
    stamp: Any  # what tells whether the files that hold the images have changed; None if only the images do


@dataclass(frozen=True, eq=False)
class Listed:
    """Rows in memory: columns of labels, and what each image is read from when it is drawn."""

    columns: pa.Table
    features: Mapping[str, Any]
    images: Callable[[int], Any] | None = None  # what stands for the image of a row; None: a column has them
    cell: Callable[[Any], Any] = lambda image: image  # turns that into a cell as `images.read_encoded` takes it
    choice: LabelChoice | None = None  # the label column, where what read the rows knows it

    def __len__(self) -> int:
        return self.columns.num_rows

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column."""
        return self.columns.column(name)

    def first_value(self, name: str) -> Any:
        """Return the first value that is not null, among a few."""
        return _first(self.columns.column(name)[:_PEEK_ROWS])

    def sample(self, name: str, labels: Labels, size: int | None, seed: int) -> Drawn:
        """Return a sample of all rows."""

        def read(rows: Sequence[int]) -> Iterator[Any]:
            for row in rows:
                yield self.cell(self.columns.column(name)[row].as_py() if self.images is None else self.images(row))

        return Draw(*labels.sampling_pairs(), size, seed), read, None


class _Dataset:
    """The columns of a dataset. Arrow cells are raw: nothing is decoded, whatever the user's format or transform."""

    def __init__(self, data: datasets.Dataset, note: str | None = None) -> None:
        self._data, self._note = data, note
        self.features = data.features

    def __len__(self) -> int:
        return len(self._data)

    def column(self, name: str) -> pa.ChunkedArray:
        return self._arrow(name)[:].column(name)

    def first_value(self, name: str) -> Any:
        return _first(self._arrow(name)[:_PEEK_ROWS].column(name))

    def sample(self, name: str, labels: Labels, size: int | None, seed: int) -> Drawn:
        formats = [x for x in self.features if x in WEBDATASET_NAMES] if name in WEBDATASET_NAMES else []
        cells = self._arrow(*(formats or [name]))

        def read(rows: Sequence[int]) -> Iterator[Any]:
            for start in range(0, len(rows), _READ_AT_ONCE):
                for row in cells[list(rows[start : start + _READ_AT_ONCE])].to_pylist():
                    yield next((cell for cell in row.values() if cell is not None), None)

        return Draw(*labels.sampling_pairs(), size, seed), read, self._note

    def _arrow(self, *names: str) -> datasets.Dataset:
        return self._data.select_columns(list(names)).with_format("arrow")


Data: TypeAlias = Listed | _Dataset | ParquetSplit


def _first(cells: pa.ChunkedArray) -> Any:
    return next((cell.as_py() for cell in cells if cell.is_valid), None)


def open_rows(source: Source, sampling: Sampling, warn: Warn = logger.warning) -> Rows:
    """Find the columns of a split, read its labels and draw a sample."""
    if source.remote is not None:
        try:
            return _rows(source, source.remote, sampling, warn)
        except UseDownload as why:
            logger.info("%s is downloaded, not read in parts: %s", source, why)
    data = source.load()
    if type(data).__module__.partition(".")[0] == "datasets":
        import datasets

        stream = isinstance(data, datasets.IterableDataset)
        data = _Dataset(*_taken(source, data, sampling)) if stream else _Dataset(data)
    return _rows(source, data, sampling, warn)


def _rows(source: Source, data: Data, sampling: Sampling, warn: Warn) -> Rows:
    if len(data) == 0:
        raise TaskError(f"{source} has no rows{source.advice}")
    features = data.features
    try:
        image_column = find_image_column(features, sampling.image_column, data.first_value)
        known = getattr(data, "choice", None)
        choice = known or find_label_column(features, sampling.label_column, image_column, data.column)
    except (ColumnError, LabelError) as error:
        raise type(error)(f"{source}: {error}") from error
    if not choice.by_name:
        others = [name for name in features if name not in (image_column, choice.name)]
        likely = [name for name in others if not BOOKKEEPING.fullmatch(name)]
        instead = f" instead of {', '.join(likely[:4])}" if likely else ""
        warn(
            f"labels are taken from column {choice.name!r}{instead} only because its values repeat; if that is wrong, "
            "pass label_column=…"
        )
    try:
        if len(choice.columns) > 1:
            labels = read_flags({name: data.column(name) for name in choice.columns}, warn)
        else:
            labels = read_labels(data.column(choice.name), features[choice.name], choice.name, warn)
    except LabelError as error:
        raise LabelError(f"{source}, label column {choice.name!r}: {error}{source.advice}") from error
    sample = data.sample(image_column, labels, sampling.max_samples, sampling.seed)
    rows = Rows(image_column, choice.name, labels, *sample, getattr(data, "stamp", None))
    size, present = sampling.max_samples, int(np.count_nonzero(labels.counts))
    if size is not None and size < present:
        warn(f"max_samples={size} covers at most {size} of {present} classes; max_samples={present} would cover all")
    drawn, n, classes = len(rows.draw.slots), len(labels.labelled), len(labels.names)
    logger.info("%d of %d rows of %s drawn, %d classes", drawn, n, source.dataset, classes)
    return rows


def _taken(source: Source, stream: datasets.IterableDataset, sampling: Sampling) -> tuple[datasets.Dataset, str | None]:
    """Return rows of a stream, images undecoded, as a dataset in memory; and a note if there may be more."""
    import datasets
    import pyarrow as pa

    stream = stream.with_format(None)
    if stream.features is not None:
        stream = stream.decode(False)
    size = sampling.max_samples
    wanted = None if size is None else max(_STREAMED * size, _LEAST_STREAMED)
    if wanted is not None:
        stream = stream.shuffle(seed=sampling.seed, buffer_size=wanted).take(wanted)
    rows = list(stream)
    try:
        data = datasets.Dataset.from_list(rows, features=stream.features)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise LabelError(f"the rows of {source} are of mixed types: {error}") from error
    logger.info("%d rows of the stream %s taken", len(rows), source.dataset)
    note = f"drawn from {wanted:,} rows of the stream, shuffled {wanted:,} at a time" if len(rows) == wanted else None
    return data, note
