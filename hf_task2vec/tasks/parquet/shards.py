"""Parquet files on the Hub: their footers, label columns, and where the values of an image column can be entered."""

from __future__ import annotations

import io
import logging
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

from hf_task2vec.errors import HubCorruptError, HubError
from hf_task2vec.files import atomic_path, cache_dir, sha256_bytes
from hf_task2vec.hub import REQUEST_TIMEOUT, HubSession
from hf_task2vec.tasks.parquet.pages import (
    CODECS,
    ENCODINGS,
    DamagedPageError,
    IncompleteError,
    Leaf,
    expected_bytes,
    first_values,
    parse_struct,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import pyarrow as pa
    import pyarrow.parquet as pq

logger = logging.getLogger(__name__)

_THREADS = 8  # requests at a time
_TAIL = 4 << 10, 64 << 10  # bytes at the end of a file where its footer is looked for
_MAGIC = b"PAR1"
T = TypeVar("T")
U = TypeVar("U")


class NotCheap(Exception):
    """A split cannot be read in parts, or not by fewer bytes; the text says why."""


class RemoteFile(io.RawIOBase):
    """A file of a dataset repository at one commit, of which only the bytes asked for are transferred, and kept.

    `huggingface_hub.HfFileSystem` reads ranges as well, but asks for the repository first, even for what is kept, and
    takes a whole file in answer to a range.
    """

    def __init__(self, hub_id: str, commit: str, path: str, size: int, token: Any) -> None:
        self.path, self.size = path, size
        # A session is given a time, and the images may be read long after the labels: each part has its own.
        self._session = partial(HubSession, hub_id, revision=commit, token=token)
        key = "\0".join([self._session().api.endpoint, hub_id, commit, path])
        self._folder = cache_dir() / "hub" / "parts" / sha256_bytes(key.encode())[:32]
        self._position = 0
        self.bytes_read = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it has positions."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it."""
        self._position = offset + (0, self._position, self.size)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the position on."""
        data = self.fetch(self._position, min(self._position + len(buffer), self.size))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def fetch(self, start: int, stop: int) -> bytes:
        """Return bytes `start` to `stop`, which the file must have; safe in threads."""
        if stop <= start:
            return b""
        part = self._folder / f"{start}-{stop}"
        with suppress(OSError):
            return part.read_bytes()
        action = f"reading a part of {self.path}"
        session = self._session()
        data = session.call(action, self._get, session, start, stop, limit=REQUEST_TIMEOUT)
        self.bytes_read += len(data)
        try:
            with atomic_path(part) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            logger.debug("the cache is not usable (%s)", error)
        return data

    def _get(self, session: HubSession, start: int, stop: int) -> bytes:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        api = session.api
        where = {"repo_type": "dataset", "revision": session.revision, "endpoint": api.endpoint}
        url = hf_hub_url(session.repo_id, self.path, **where)
        headers = build_hf_headers(token=api.token, library_name=api.library_name, library_version=api.library_version)
        headers |= {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
            hf_raise_for_status(response)
            if response.status_code != 206:
                raise HubError(f"{api.endpoint} sends {self.path} only as a whole; parts of files cannot be read")
            data = bytes(response.read())
        if len(data) != stop - start:
            raise ConnectionError(f"{len(data)} bytes came instead of {stop - start}")
        return data

    @contextmanager
    def understood(self) -> Iterator[None]:
        """Turn the errors of bytes that make no sense into ours, and keep none of the file."""
        import pyarrow as pa

        try:
            yield
        except (OSError, DamagedPageError, IncompleteError, pa.ArrowException, LookupError) as error:
            for part in self._folder.glob("*"):
                part.unlink(missing_ok=True)
            said = next(iter(str(error).splitlines()), "")
            place = self._session().place
            raise HubCorruptError(f"{self.path} of {place} is damaged, or was on the way: {said}") from error


@dataclass(frozen=True)
class Entry:
    """Rows of a column that can be read from their first one on: a page, or a whole row group."""

    file: RemoteFile
    first: int
    """First row in the split."""
    rows: int
    offset: int
    """Where the page starts in the file."""
    end: int
    """Where its column chunk ends."""
    leaf: Leaf

    def cost(self, count: int) -> int:
        """Return about how many bytes the first `count` rows take."""
        return expected_bytes(min(count, self.rows), self.leaf.mean)

    def at(self, positions: Sequence[int]) -> list[bytes | None]:
        """Return the values at some positions."""
        values = self.first_values(max(positions) + 1)
        return [values[position] for position in positions]

    def first_values(self, count: int) -> list[bytes | None]:
        """Return the first `count` values."""

        def fetch(offset: int, length: int) -> bytes:
            return self.file.fetch(offset, min(offset + length, self.end))

        with self.file.understood():
            return first_values(fetch, self.offset, count, self.leaf)


@dataclass(frozen=True, eq=False)
class Shard:
    """One Parquet file whose footer was read."""

    file: RemoteFile
    first: int
    """Its first row in the split."""
    metadata: pq.FileMetaData
    footer: bytes

    def column(self, name: str) -> pa.ChunkedArray:
        """Read a column of labels: only its own bytes, and of row groups of a single label none at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        parts: list[pa.Array] = []
        with self.file.understood():
            handle = pq.ParquetFile(self.file, metadata=self.metadata)
            field = handle.schema_arrow.field(name)
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
        names = [self.metadata.schema.column(i).path for i in range(self.metadata.num_columns)]
        if leaf_name not in names:
            raise NotCheap(f"{self.file.path} has no column {leaf_name!r}")
        position = names.index(leaf_name)
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
                raise NotCheap(f"{self.file.path} is compressed with {chunk.compression}, encoded as {chunk.encodings}")
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
                found.append(Entry(self.file, first + row, stop - row, offset, end, leaf))
            first += group.num_rows
        return found

    @cached_property
    def _index_places(self) -> list[list[tuple[int, int]]]:
        """Offset and length of the page index of each column of each row group; pyarrow does not tell them."""
        groups = parse_struct(self.footer, 0)[0][4]
        return [[(chunk.get(4, 0), chunk.get(5, 0)) for chunk in group[1]] for group in groups]

    def _pages(self, position: int) -> list[list[tuple[int, int, int]]]:
        """Return offset, length and first row (in the row group) of every page of a column, by row group."""
        places = [group[position] for group in self._index_places]
        start = min(offset for offset, _ in places)  # they lie together
        data = self.file.fetch(start, max(sum(place) for place in places))
        with self.file.understood():
            indexes = [parse_struct(data, offset - start)[0][1] for offset, _ in places]
        return [[(page[1], page[2], page.get(3, 0)) for page in index] for index in indexes]


def open_shards(files: list[RemoteFile]) -> list[Shard]:
    """Read the footers of Parquet files, in the order of the split's rows."""
    footers = in_threads(_footer, files)
    starts = accumulate((metadata.num_rows for metadata, _ in footers), initial=0)
    return [Shard(file, first, *footer) for file, first, footer in zip(files, starts, footers, strict=False)]


def in_threads(function: Callable[[T], U], items: Iterable[T]) -> list[U]:
    """Return ``function(item)`` of every item, several at a time."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="hf_task2vec-read") as pool:
        return list(pool.map(function, items))


def _footer(file: RemoteFile) -> tuple[pq.FileMetaData, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = file.size
    length = min(size, max(_TAIL[0], min(size >> 10, _TAIL[1])))
    data = file.fetch(size - length, size)
    needed = struct.unpack("<I", data[-8:-4])[0] + 8 if length >= 12 else size + 1
    if data[-4:] != _MAGIC or needed > size:
        raise NotCheap(f"{file.path} is no Parquet file")
    if needed > length:
        data = file.fetch(size - needed, size - length) + data
    with file.understood():
        return pq.read_metadata(pa.BufferReader(data[-needed:])), data[-needed:-8]


def _with_values(pages: list[tuple[int, int, int]], n_rows: int, mean: float) -> list[tuple[int, int]]:
    """Return offset and first row of the first page and of those that hold values, not indices of a dictionary.

    Where a dictionary is used, the values of a later page stand as deep in it as those of the pages before.
    """
    ends = [row for *_, row in pages[1:]] + [n_rows]
    sizes = [length / max(end - row, 1) for (_, length, row), end in zip(pages, ends, strict=True)]
    return [
        (offset, row)
        for number, ((offset, _, row), size) in enumerate(zip(pages, sizes, strict=True))
        if number == 0 or size > 0.1 * mean
    ]


def _constant(group: Any, name: str) -> int | None:
    """Return the one value that a whole row group has in a column of integers, None if it has several or none."""
    chunks = (group.column(number) for number in range(group.num_columns))
    facts = next((chunk.statistics for chunk in chunks if chunk.path_in_schema == name), None)
    if facts is None or not (facts.has_min_max and facts.has_null_count):
        return None
    return int(facts.min) if facts.null_count == 0 and facts.min == facts.max else None
