"""One split of Parquet files: labels by column, and images from places in the files where reading can begin.

Which rows are drawn follows from that: what stands before a value in its row group or page must be read as well.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hf_task2vec.errors import ColumnError
from hf_task2vec.tasks.columns import of_schema
from hf_task2vec.tasks.parquet.pages import CODECS, ENCODINGS, Leaf, expected_bytes
from hf_task2vec.tasks.sampling import Draw, Drawn

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hf_task2vec.tasks.labels import Labels

logger = logging.getLogger(__name__)

_THREADS = 8  # files or pages at a time
_SPARE = 1.25  # rows a class has to choose from, for each that the sample takes of it
_PEEK_ROWS = 16  # rows searched for a first value
T = TypeVar("T")
U = TypeVar("U")


class UseDownload(Exception):
    """A split cannot be read in parts, or not by fewer bytes; the text says why."""


@dataclass(frozen=True)
class Entry:
    """Rows of a column that are read from their first one on."""

    first: int  # its number in the split
    rows: int
    mean: float  # size of a cell in the file, bytes
    at: Callable[[Sequence[int]], Sequence[Any]]  # returns the cells at some positions

    def cost(self, count: int) -> int:
        """Return about how many bytes the first `count` rows take."""
        return expected_bytes(min(count, self.rows), self.mean)


class ParquetPart:
    """One Parquet file, here or on the Hub."""

    path: str  # in the dataset
    metadata: pq.FileMetaData  # its footer
    open: Callable[[], AbstractContextManager[pq.ParquetFile]]  # turns its errors into ours
    entries: Callable[[str, int], Iterable[Entry]]  # where a column can be entered, from its first row in the split on


def leaf_of(part: ParquetPart, name: str, number: int) -> tuple[int, Leaf, int, int]:
    """Return where the bytes of images are in a row group: the column, what it is, its first data page, and its end."""
    import pyarrow as pa

    schema, group = part.metadata.schema, part.metadata.row_group(number)
    kind = schema.to_arrow_schema().field(name).type
    if not (pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise UseDownload(f"column {name!r} ({kind}) does not hold the images themselves")
    leaf_name = f"{name}.bytes" if pa.types.is_struct(kind) else name
    names = [schema.column(i).path for i in range(part.metadata.num_columns)]
    if leaf_name not in names:
        raise UseDownload(f"{part.path} has no column {leaf_name!r}")
    position = names.index(leaf_name)
    chunk = group.column(position)
    if chunk.compression not in CODECS or not ENCODINGS.issuperset(chunk.encodings):
        raise UseDownload(f"{part.path} is compressed with {chunk.compression}, encoded as {chunk.encodings}")
    dictionary = chunk.dictionary_page_offset if chunk.has_dictionary_page else None
    first = chunk.data_page_offset
    end = (first if dictionary is None else min(dictionary, first)) + chunk.total_compressed_size
    mean = chunk.total_compressed_size / group.num_rows
    return position, Leaf(chunk.compression, schema.column(position).max_definition_level, dictionary, mean), first, end


class ParquetSplit:
    """Parquet files that make one split."""

    def __init__(self, parts: Sequence[ParquetPart], exact_bytes: float, features: Any = None) -> None:
        self._parts, self._exact_bytes, self._known = parts, exact_bytes, features
        self._entered: dict[str, _Entries] = {}

    @cached_property
    def _footers(self) -> list[pq.FileMetaData]:
        return _in_threads(lambda part: part.metadata, self._parts)

    @cached_property
    def _schema(self) -> pa.Schema:
        return self._footers[0].schema.to_arrow_schema()

    @cached_property
    def features(self) -> Mapping[str, Any]:
        """Columns and their types."""
        return self._known or of_schema(self._schema)

    def __len__(self) -> int:
        return sum(footer.num_rows for footer in self._footers)

    def column(self, name: str) -> pa.ChunkedArray:
        """Read a whole column of labels: only its own bytes, and of row groups of a single label none at all."""
        import pyarrow as pa

        kind = self._schema.field(name).type
        parts = _in_threads(lambda part: _column(part, name, kind), self._parts)
        return pa.chunked_array([chunk for chunks in parts for chunk in chunks], kind)

    def first_value(self, name: str) -> Any:
        """Return the first value that is not null, among a few; None if there is none."""
        head = [entry.at(range(min(_PEEK_ROWS, entry.rows))) for entry in self.entries(name).entries[:1]]
        return next((value for values in head for value in values if value is not None), None)

    def sample(self, name: str, labels: Labels, size: int | None, seed: int) -> Drawn:
        """Return a sample drawn from all rows if that takes few bytes, else from those near the start of a page."""
        entries = self.entries(name)
        rows, classes = labels.sampling_pairs()
        draw = Draw(rows, classes, size, seed)
        exact = entries.cost(draw.rows)
        if exact <= self._exact_bytes or size is None:
            return draw, entries.read, None
        near = _near(entries.depth(rows), classes, draw)
        draw = Draw(rows[near], classes[near], size, seed)
        note = (
            f"drawn from the {len(np.unique(rows[near])):,} of {len(labels.labelled):,} rows that lie near the "
            f"start of a row group or page: about {entries.cost(draw.rows) / 1e6:.1f} MB to read instead of "
            f"{exact / 1e6:.1f} MB"
        )
        logger.info("sample %s", note)
        return draw, entries.read, note

    def entries(self, name: str) -> _Entries:
        """Return the places where a column can be entered."""
        if name not in self._entered:
            starts = accumulate((footer.num_rows for footer in self._footers), initial=0)
            parts = zip(self._parts, starts, strict=False)
            found = _in_threads(lambda part: list(part[0].entries(name, part[1])), parts)
            self._entered[name] = _Entries([entry for entries in found for entry in entries])
        return self._entered[name]


class _Entries:
    """All places where a column of a split can be entered, by row."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self._first = np.array([entry.first for entry in entries], dtype=np.int64)

    def cost(self, rows: Sequence[int]) -> int:
        """Return about how many bytes it takes to have some rows."""
        counts: dict[int, int] = {}
        for entry, depth in zip(self._of(rows).tolist(), self.depth(rows).tolist(), strict=True):
            counts[entry] = max(counts.get(entry, 0), depth + 1)
        return sum(self.entries[entry].cost(count) for entry, count in counts.items())

    def depth(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return how many rows lie before each of some rows where it is entered."""
        return np.asarray(np.asarray(rows, dtype=np.int64) - self._first[self._of(rows)])

    def read(self, rows: Sequence[int]) -> Iterator[Any]:
        """Yield the cells at some rows; each place is entered once."""
        entries = self._of(rows).tolist()
        wanted: dict[int, list[int]] = defaultdict(list)
        for entry, depth in zip(entries, self.depth(rows).tolist(), strict=True):
            wanted[entry].append(depth)
        values = _in_threads(lambda item: iter(self.entries[item[0]].at(item[1])), wanted.items())
        found = dict(zip(wanted, values, strict=True))
        for entry in entries:
            yield next(found[entry])

    def _of(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.searchsorted(self._first, np.asarray(rows, dtype=np.int64), side="right") - 1


def _near(depth: np.ndarray, classes: np.ndarray, draw: Draw) -> np.ndarray:
    """Return the positions of the rows of each class that are nearest to where an entry starts."""
    quota = np.bincount([label for _, label in draw.slots], minlength=int(classes.max(initial=0)) + 1)
    needed = np.ceil(_SPARE * quota).astype(np.int64) + 1
    order = np.lexsort((depth, classes))
    kept = []
    for positions in np.split(order, np.flatnonzero(np.diff(classes[order])) + 1):
        last = min(needed[classes[positions[0]]], len(positions)) - 1
        kept.append(positions[depth[positions] <= depth[positions[last]]])
    return np.sort(np.concatenate(kept))


def _in_threads(function: Callable[[T], U], items: Iterable[T]) -> list[U]:
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="hf_task2vec-read") as pool:
        return list(pool.map(function, items))


def _column(part: ParquetPart, name: str, kind: pa.DataType) -> list[pa.Array]:
    import pyarrow as pa

    chunks: list[pa.Array] = []
    with part.open() as handle:
        if name not in handle.schema_arrow.names:
            raise ColumnError(f"{part.path} has no column {name!r}, as the first file has")
        for number in range(part.metadata.num_row_groups):
            group = part.metadata.row_group(number)
            columns = (group.column(i) for i in range(group.num_columns))
            facts = next((chunk.statistics for chunk in columns if chunk.path_in_schema == name), None)
            known = facts if facts is not None and facts.has_min_max and facts.has_null_count else None
            if known and pa.types.is_integer(kind) and (known.null_count, known.min) == (0, known.max):
                chunks.append(pa.repeat(pa.scalar(int(known.min), kind), group.num_rows))
            else:
                chunks += handle.read_row_group(number, columns=[name]).column(name).cast(kind).chunks
    return chunks
