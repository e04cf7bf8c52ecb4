"""Parquet files on the Hub: their footers, label columns, and where the values of an image column can be entered."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import HubCorruptError
from .hub_ranges import RemoteFiles
from .parquet_bytes import CODECS, DamagedPageError, IncompleteError, parse_struct
from .parquet_pages import ENCODINGS, Leaf, expected_bytes, first_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa
    import pyarrow.parquet as pq

_THREADS = 8  # requests at a time
_TAIL = 4 << 10, 64 << 10  # bytes at the end of a file where its footer is looked for
_MAGIC = b"PAR1"
T = TypeVar("T")
U = TypeVar("U")


class NotCheap(Exception):
    """A split cannot be read in parts, or not by fewer bytes; the text says why."""


@dataclass(frozen=True)
class Entry:
    """Rows of a column that can be read from their first one on: a page, or a whole row group.

    Attributes
    ----------
    shard
        The file.
    first, rows
        First row in the split, and their number.
    offset, end
        Where the page starts in the file, and where its column chunk ends.
    leaf
        How to decode the values.
    """

    shard: Shard
    first: int
    rows: int
    offset: int
    end: int
    leaf: Leaf

    def cost(self, count: int) -> int:
        """Return about how many bytes the first `count` rows take."""
        return min(expected_bytes(count, self.leaf.mean), expected_bytes(self.rows, self.leaf.mean))

    def values(self, count: int, ahead: int = 0) -> list[bytes | None]:
        """Return the first `count` values; as many bytes as `ahead` values take are fetched at once."""
        files, path = self.shard.files, self.shard.path
        start = self.offset if self.leaf.dictionary is None else self.leaf.dictionary
        wanted = expected_bytes(max(count, min(ahead, self.rows)), self.leaf.mean)

        def fetch(offset: int, length: int) -> bytes:
            length = max(length, wanted) if offset == start else length
            return files.read(path, offset, min(length, self.end - offset))

        with _understood(files, path):
            return first_values(fetch, self.offset, count, self.leaf)


@dataclass(frozen=True, eq=False)
class Shard:
    """One Parquet file whose footer was read.

    Attributes
    ----------
    files, path, size
        Where it is, and its length in bytes.
    first
        Its first row in the split.
    metadata, footer
        The footer, parsed and as bytes.
    """

    files: RemoteFiles
    path: str
    size: int
    first: int
    metadata: pq.FileMetaData
    footer: bytes

    def column(self, name: str) -> pa.ChunkedArray:
        """Read a column of labels: only its own bytes, and of row groups of a single label none at all."""
        import pyarrow.parquet as pq

        with _understood(self.files, self.path):
            return self._column(pq.ParquetFile(self.files.open(self.path, self.size), metadata=self.metadata), name)

    def _column(self, handle: pq.ParquetFile, name: str) -> pa.ChunkedArray:
        import pyarrow as pa

        field = handle.schema_arrow.field(name)
        parts: list[pa.Array] = []
        for number in range(self.metadata.num_row_groups):
            group = self.metadata.row_group(number)
            constant = _constant(group, name) if pa.types.is_integer(field.type) else None
            if constant is not None:
                parts.append(pa.repeat(pa.scalar(constant, field.type), group.num_rows))
            else:
                parts += handle.read_row_group(number, columns=[name]).column(name).chunks
        return pa.chunked_array(parts, field.type)

    def entries(self, leaf_name: str) -> list[Entry]:
        """Return the places where the values of a leaf column can be entered, by row."""
        position = self._position(leaf_name)
        column = self.metadata.schema.column(position)
        if column.max_repetition_level:
            raise NotCheap(f"column {leaf_name!r} is a list")
        found, first = [], self.first
        for number in range(self.metadata.num_row_groups):
            group = self.metadata.row_group(number)
            if not group.num_rows:
                continue
            chunk = group.column(position)
            if chunk.compression not in CODECS or not ENCODINGS.issuperset(chunk.encodings):
                raise NotCheap(f"{self.path} is compressed with {chunk.compression}, encoded as {chunk.encodings}")
            dictionary = chunk.dictionary_page_offset if chunk.has_dictionary_page else None
            start = chunk.data_page_offset if dictionary is None else min(dictionary, chunk.data_page_offset)
            mean = chunk.total_compressed_size / group.num_rows
            leaf = Leaf(chunk.compression, column.max_definition_level, dictionary, mean)
            pages = [(chunk.data_page_offset, 0)]
            if chunk.has_offset_index:
                pages = _with_values(self._pages(position)[number], group.num_rows, mean)
            ends = [row for _, row in pages[1:]] + [group.num_rows]
            for (offset, row), stop in zip(pages, ends, strict=True):
                end = start + chunk.total_compressed_size
                found.append(Entry(self, first + row, stop - row, offset, end, leaf))
            first += group.num_rows
        return found

    def _position(self, leaf_name: str) -> int:
        names = [self.metadata.schema.column(i).path for i in range(self.metadata.num_columns)]
        if leaf_name not in names:
            raise NotCheap(f"{self.path} has no column {leaf_name!r}")
        return names.index(leaf_name)

    @cached_property
    def _index_places(self) -> list[list[tuple[int, int]]]:
        """Offset and length of the page index of each column of each row group; pyarrow does not tell them."""
        groups = parse_struct(self.footer, 0)[0][4]
        return [[(chunk.get(4, 0), chunk.get(5, 0)) for chunk in group[1]] for group in groups]

    def _pages(self, position: int) -> list[list[tuple[int, int, int]]]:
        """Return offset, length and first row (in the row group) of every page of a column, by row group."""
        places = [group[position] for group in self._index_places]
        start = min(offset for offset, _ in places)  # they lie together
        data = self.files.read(self.path, start, max(sum(place) for place in places) - start)
        with _understood(self.files, self.path):
            indexes = [parse_struct(data, offset - start)[0][1] for offset, _ in places]
        return [[(page[1], page[2], page.get(3, 0)) for page in index] for index in indexes]


def open_shards(files: RemoteFiles, sizes: Iterable[tuple[str, int]]) -> list[Shard]:
    """Read the footers of Parquet files.

    Parameters
    ----------
    files
        The repository.
    sizes
        Path and length of each file, in the order of the split's rows.

    Raises
    ------
    NotCheap
        A file is no Parquet file that can be read in parts.
    """
    sizes = list(sizes)
    footers = in_threads(lambda item: _footer(files, *item), sizes)
    starts = accumulate((metadata.num_rows for metadata, _ in footers), initial=0)
    return [
        Shard(files, path, size, first, metadata, footer)
        for (path, size), first, (metadata, footer) in zip(sizes, starts, footers, strict=False)
    ]


def in_threads(function: Callable[[T], U], items: Iterable[T]) -> list[U]:
    """Return ``function(item)`` of every item, several at a time."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="hf_task2vec-read") as pool:
        return list(pool.map(function, items))


def _footer(files: RemoteFiles, path: str, size: int) -> tuple[pq.FileMetaData, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    length = min(size, max(_TAIL[0], min(size >> 10, _TAIL[1])))
    data = files.read(path, size - length, length)
    if len(data) < 12 or data[-4:] != _MAGIC:
        raise NotCheap(f"{path} is no Parquet file")
    needed = struct.unpack("<I", data[-8:-4])[0] + 8
    if needed > len(data):
        if needed > size:
            raise NotCheap(f"{path} is no Parquet file")
        data = files.read(path, size - needed, needed)
    data = data[-needed:]
    with _understood(files, path):
        return pq.read_metadata(pa.BufferReader(data)), data[:-8]


@contextmanager
def _understood(files: RemoteFiles, path: str) -> Iterator[None]:
    """Turn the errors of bytes that make no sense into ours, and keep none of the file."""
    import pyarrow as pa

    try:
        yield
    except (OSError, DamagedPageError, IncompleteError, pa.ArrowException, LookupError) as error:
        files.forget(path)
        said = next(iter(str(error).splitlines()), "")
        raise HubCorruptError(f"{path} of {files.session.place} is damaged, or was on the way: {said}") from error


def _with_values(pages: list[tuple[int, int, int]], n_rows: int, mean: float) -> list[tuple[int, int]]:
    """Return offset and first row of the first page and of those that hold values, not indices of a dictionary.

    Where a dictionary is used, the values of a later page stand as deep in it as those of the pages before.
    """
    ends = [row for *_, row in pages[1:]] + [n_rows]
    sizes = [length / max(end - row, 1) for (_, length, row), end in zip(pages, ends, strict=True)]
    return [
        (offset, row)
        for (offset, _, row), size, number in zip(pages, sizes, range(len(pages)), strict=True)
        if number == 0 or size > 0.1 * mean
    ]


def _constant(group: Any, name: str) -> int | None:
    """Return the one value that a whole row group has in a column of integers, None if it has several or none."""
    for number in range(group.num_columns):
        chunk = group.column(number)
        if chunk.path_in_schema == name:
            facts = chunk.statistics
            known = facts is not None and facts.has_min_max and facts.has_null_count and facts.null_count == 0
            return int(facts.min) if known and facts.min == facts.max else None
    return None
