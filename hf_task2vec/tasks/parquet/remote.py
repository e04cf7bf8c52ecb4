"""Parquet datasets on the Hub, of which only the labels and the images drawn are read.

Any row of a Parquet file can be had, but not for the price of a row: what stands before it in its page must be read
too, and pages of images are large. A sample of which every row is read this way is the same as from a download. It is
taken where it costs at most `EXACT_BYTES`. Beyond, rows are drawn from those nearest to the start of a page or row
group, as many of every class as the sample needs and a quarter more: a row then costs little more than its own bytes,
classes stay balanced, and the sample is still spread over the files. It is another sample than a download would give,
which its provenance says.
"""

from __future__ import annotations

import io
import json
import logging
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import HubCorruptError, HubError
from hf_task2vec.files import atomic_path, cache_dir, canonical_json, sha256_bytes, warn_not_kept, write_json
from hf_task2vec.hub import REQUEST_TIMEOUT, HubSession
from hf_task2vec.tasks.columns import declared
from hf_task2vec.tasks.parquet.pages import DamagedPageError, IncompleteError, Leaf, first_values, parse_struct
from hf_task2vec.tasks.parquet.split import Entry, ParquetPart, ParquetSplit, UseDownload, leaf_of

if TYPE_CHECKING:
    import datasets
    import pyarrow.parquet as pq

    from hf_task2vec.tasks.labels import Labels
    from hf_task2vec.tasks.sampling import Drawn

logger = logging.getLogger(__name__)

EXACT_BYTES = 32 << 20  # up to so many the sample is the one that a download would give
MOST_SHARE = 0.5  # of all images (and `EXACT_BYTES`), beyond which the split is downloaded instead

_TAIL = 4 << 10, 64 << 10  # bytes at the end of a file where its footer is looked for
_MAGIC = b"PAR1"
_PATHS_AT_ONCE = 500


@dataclass(frozen=True)
class Listing:
    """The Parquet files of a configuration of a dataset at one commit, by split."""

    commit: str
    config_name: str
    splits: dict[str, list[str]]
    sizes: dict[str, int]
    features: dict[str, Any] | None  # as in the dataset's card; None if only the files tell


def kept_listing(hub_id: str, name: str | None, revision: str | None, token: Any) -> Listing | None:
    """Return the listing kept from the last time that the dataset was opened, None if there is none."""
    try:
        return Listing(**json.loads(_listing_path(hub_id, name, revision, token).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def list_files(
    hub_id: str, name: str | None, revision: str | None, token: Any, commit: str, builder: datasets.DatasetBuilder
) -> Listing | None:
    """Return which Parquet files a dataset consists of at the commit that `revision` stands for, None if of none."""
    try:
        listing = _list(HubSession(hub_id, revision=commit, token=token), commit, builder)
    except UseDownload as why:
        logger.info("%s is downloaded, not read in parts: %s", hub_id, why)
        return None
    try:
        write_json(_listing_path(hub_id, name, revision, token), asdict(listing))
    except OSError as error:
        warn_not_kept(error)
    return listing


def _listing_path(hub_id: str, name: str | None, revision: str | None, token: Any) -> Path:
    key = canonical_json([HubSession(hub_id, token=token).api.endpoint, hub_id, name, revision])
    return cache_dir() / "hub" / "listings" / f"{sha256_bytes(key)[:32]}.json"


def _list(session: HubSession, commit: str, builder: datasets.DatasetBuilder) -> Listing:
    from datasets.packaged_modules.parquet.parquet import Parquet

    if not isinstance(builder, Parquet) or not builder.config.data_files:
        raise UseDownload(
            "its files are not Parquet (those of revision='refs/convert/parquet' are, where the Hub made a copy)"
        )
    if getattr(builder.config, "columns", None) or getattr(builder.config, "filters", None):
        raise UseDownload("its card chooses columns or rows")
    start = f"hf://datasets/{session.repo_id}@{commit}/"
    splits: dict[str, list[str]] = {}
    for split, places in builder.config.data_files.items():
        if not all(place.startswith(start) and "::" not in place for place in map(str, places)):
            raise UseDownload("its files lie elsewhere")
        splits[str(split)] = [str(place)[len(start) :] for place in places]
    paths = sorted({path for found in splits.values() for path in found})
    sizes: dict[str, int] = {}
    where: dict[str, Any] = {"revision": commit, "repo_type": "dataset"}
    for at in range(0, len(paths), _PATHS_AT_ONCE):
        some = paths[at : at + _PATHS_AT_ONCE]
        infos = session.call("listing its files", session.api.get_paths_info, str(session.repo_id), some, **where)
        sizes |= {info.path: getattr(info, "size", 0) for info in infos}
    if set(sizes) != set(paths):
        raise UseDownload("its files are not all listed")
    features = builder.info.features
    known = None if features is None else json.loads(json.dumps(features.to_dict()))
    return Listing(commit, builder.config.name, splits, sizes, known)


class _RemoteFile(io.RawIOBase, ParquetPart):
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

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self.size)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
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
        try:
            with atomic_path(part) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            warn_not_kept(error)
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

    @cached_property
    def _footer(self) -> bytes:
        size = self.size
        length = min(size, max(_TAIL[0], min(size >> 10, _TAIL[1])))
        data = self.fetch(size - length, size)
        needed = struct.unpack("<I", data[-8:-4])[0] + 8 if length >= 12 else size + 1
        if data[-4:] != _MAGIC or needed > size:
            raise UseDownload(f"{self.path} is no Parquet file")
        if needed > length:
            data = self.fetch(size - needed, size - length) + data
        return data[-needed:]

    @cached_property
    def metadata(self) -> pq.FileMetaData:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._understood():
            return pq.read_metadata(pa.BufferReader(self._footer))

    @contextmanager
    def open(self) -> Iterator[pq.ParquetFile]:
        """Open it; only what is read is transferred."""
        import pyarrow.parquet as pq

        with self._understood():
            yield pq.ParquetFile(self, metadata=self.metadata)

    @contextmanager
    def _understood(self) -> Iterator[None]:
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

    def entries(self, name: str, first: int) -> Iterator[Entry]:
        """Return the pages of a column of images that can be entered."""
        for number in range(self.metadata.num_row_groups):
            group = self.metadata.row_group(number)
            if not group.num_rows:
                continue
            position, leaf, start, end = leaf_of(self, name, number)
            pages = [(start, 0)]
            if group.column(position).has_offset_index:
                pages = _with_values(self._pages(position, number), group.num_rows, leaf.mean)
            stops = [row for _, row in pages[1:]] + [group.num_rows]
            for (offset, row), stop in zip(pages, stops, strict=True):
                yield Entry(first + row, stop - row, leaf.mean, partial(self._values, offset, end, leaf))
            first += group.num_rows

    @cached_property
    def _index_places(self) -> list[list[tuple[int, int]]]:
        """Offset and length of the page index of each column of each row group; pyarrow does not tell them."""
        with self._understood():
            groups = parse_struct(self._footer)[0][4]
            return [[(chunk.get(4, 0), chunk.get(5, 0)) for chunk in group[1]] for group in groups]

    def _pages(self, position: int, number: int) -> list[tuple[int, int, int]]:
        """Return offset, length and first row (in the row group) of every page of a column in a row group."""
        places = [group[position] for group in self._index_places]
        start = min(offset for offset, _ in places)  # they lie together
        data = self.fetch(start, max(sum(place) for place in places))
        with self._understood():
            index = parse_struct(data, places[number][0] - start)[0][1]
            return [(page[1], page[2], page.get(3, 0)) for page in index]

    def _values(self, offset: int, end: int, leaf: Leaf, positions: Sequence[int]) -> list[bytes | None]:
        """Return values of the page at `offset`, in a column chunk that has an end."""

        def fetch(start: int, length: int) -> bytes:
            return self.fetch(start, min(start + length, end))

        with self._understood():
            values = first_values(fetch, offset, max(positions) + 1, leaf)
        return [values[position] for position in positions]


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


class RemoteSplit(ParquetSplit):
    """One split of a Parquet dataset on the Hub."""

    def __init__(self, listing: Listing, split: str, hub_id: str, token: Any) -> None:
        files = [
            _RemoteFile(hub_id, listing.commit, path, listing.sizes[path], token) for path in listing.splits[split]
        ]
        features = {name: declared(kind) for name, kind in (listing.features or {}).items()}
        super().__init__(files, EXACT_BYTES, features)

    def sample(self, name: str, labels: Labels, size: int | None, seed: int) -> Drawn:
        """Draw as any Parquet split does; `UseDownload` if it would take more bytes than a download is worth."""
        if size is None:
            raise UseDownload("all images are asked for")
        draw, read, note = super().sample(name, labels, size, seed)
        entries = self.entries(name)
        needed, total = entries.cost(draw.rows), sum(entry.cost(entry.rows) for entry in entries.entries)
        if note is not None and needed > max(EXACT_BYTES, MOST_SHARE * total):
            raise UseDownload(f"the sample would take {needed / 1e6:,.0f} MB of {total / 1e6:,.0f} MB")
        return draw, read, note
