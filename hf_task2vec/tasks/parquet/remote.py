"""Parquet datasets on the Hub, of which only the labels and the images drawn are read.

Any row of a Parquet file can be had, but not for the price of a row: what stands before it in its page must be read
too, and pages of images are large. A sample of which every row is read this way is the same as from a download. It is
taken where it costs at most `EXACT_BYTES`. Beyond, rows are drawn from those nearest to the start of a page or row
group, as many of every class as the sample needs and a quarter more: a row then costs little more than its own bytes,
classes stay balanced, and the sample is still spread over the files. It is another sample than a download would give,
which its provenance says.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_task2vec.files import cache_dir, canonical_json, sha256_bytes, write_json
from hf_task2vec.hub import HubSession
from hf_task2vec.tasks.parquet.plan import Pages
from hf_task2vec.tasks.parquet.shards import Entry, NotCheap, RemoteFile, Shard, in_threads, open_shards
from hf_task2vec.tasks.sampling import Draw

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from hf_task2vec.tasks.labels import Labels

logger = logging.getLogger(__name__)

EXACT_BYTES = 32 << 20
"""Up to so many bytes the sample is the one that a download would give."""
MOST_SHARE = 0.5
"""Beyond this share of all images (and `EXACT_BYTES`) the split is downloaded instead."""

_PEEK_ROWS = 16  # rows searched for a first value
_PATHS_AT_ONCE = 500


@dataclass(frozen=True)
class Listing:
    """The Parquet files of a configuration at one commit, by split."""

    commit: str
    config_name: str
    splits: dict[str, list[str]]
    sizes: dict[str, int]
    features: dict[str, Any] | None
    """As in the dataset's card; None if only the files tell."""


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
    except NotCheap as why:
        logger.info("%s is downloaded, not read in parts: %s", hub_id, why)
        return None
    try:
        write_json(_listing_path(hub_id, name, revision, token), asdict(listing))
    except OSError as error:
        logger.debug("the cache is not usable (%s)", error)
    return listing


def _listing_path(hub_id: str, name: str | None, revision: str | None, token: Any) -> Path:
    key = canonical_json([HubSession(hub_id, token=token).api.endpoint, hub_id, name, revision])
    return cache_dir() / "hub" / "listings" / f"{sha256_bytes(key)[:32]}.json"


def _list(session: HubSession, commit: str, builder: datasets.DatasetBuilder) -> Listing:
    from datasets.packaged_modules.parquet.parquet import Parquet

    if not isinstance(builder, Parquet) or not builder.config.data_files:
        raise NotCheap(
            "its files are not Parquet (those of revision='refs/convert/parquet' are, where the Hub made a copy)"
        )
    if getattr(builder.config, "columns", None) or getattr(builder.config, "filters", None):
        raise NotCheap("its card chooses columns or rows")
    start = f"hf://datasets/{session.repo_id}@{commit}/"
    splits: dict[str, list[str]] = {}
    for split, places in builder.config.data_files.items():
        if not all(place.startswith(start) and "::" not in place for place in map(str, places)):
            raise NotCheap("its files lie elsewhere")
        splits[str(split)] = [str(place)[len(start) :] for place in places]
    paths = sorted({path for found in splits.values() for path in found})
    sizes: dict[str, int] = {}
    for at in range(0, len(paths), _PATHS_AT_ONCE):
        infos = session.call(
            "listing its files",
            session.api.get_paths_info,
            str(session.repo_id),
            paths[at : at + _PATHS_AT_ONCE],
            revision=commit,
            repo_type="dataset",
        )
        sizes |= {info.path: getattr(info, "size", 0) for info in infos}
    if set(sizes) != set(paths):
        raise NotCheap("its files are not all listed")
    features = builder.info.features
    declared = None if features is None else json.loads(json.dumps(features.to_dict()))
    return Listing(commit, builder.config.name, splits, sizes, declared)


def of_the_dataset(path: str) -> bool:
    """Say whether a row of a dataset on the Hub may name this file or address: files of the Hub, and their copies.

    A row can name any file of the machine that reads it, or any server: what lies elsewhere is nobody's image.
    """
    if "://" in path:
        return path.rpartition("::")[2].startswith("hf://")
    import datasets.config
    from huggingface_hub.constants import HF_HUB_CACHE

    caches = (datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH, HF_HUB_CACHE)
    return any(Path(path).resolve().is_relative_to(Path(cache).resolve()) for cache in caches)


class RemoteSplit:
    """One split of a Parquet dataset on the Hub."""

    def __init__(self, listing: Listing, split: str, hub_id: str, token: Any) -> None:
        self._listing = listing
        self._files = [
            RemoteFile(hub_id, listing.commit, path, listing.sizes[path], token) for path in listing.splits[split]
        ]

    @cached_property
    def _shards(self) -> list[Shard]:
        return open_shards(self._files)

    def __len__(self) -> int:
        return sum(shard.metadata.num_rows for shard in self._shards)

    @cached_property
    def features(self) -> datasets.Features:
        """Columns and their types."""
        import datasets

        if self._listing.features is not None:
            return datasets.Features.from_dict(self._listing.features)
        return datasets.Features.from_arrow_schema(self._shards[0].metadata.schema.to_arrow_schema())

    def column(self, name: str) -> pa.ChunkedArray:
        """Read a whole column of labels."""
        import pyarrow as pa

        parts = in_threads(lambda shard: shard.column(name), self._shards)
        kind = self.features.arrow_schema.field(name).type
        chunks = [chunk for part in parts for chunk in part.cast(kind).chunks]
        logger.info("labels read: %.1f MB", sum(file.bytes_read for file in self._files) / 1e6)
        return pa.chunked_array(chunks, kind)

    def first_value(self, name: str) -> Any:
        """Return the first value of a binary column that is not null, among a few; None if there is none."""
        for entry in self._entries(name)[:1]:
            return next((value for value in entry.first_values(min(_PEEK_ROWS, entry.rows)) if value is not None), None)
        return None

    def sample(
        self, name: str, labels: Labels, size: int | None, seed: int
    ) -> tuple[Draw, Callable[[Sequence[int]], Iterator[Any]], str | None]:
        """Return `draw`, `read` and `note` of `rows.Rows` for the images in column `name`.

        Raises
        ------
        NotCheap
            If it would take more bytes than a download is worth.
        """
        if size is None:
            raise NotCheap("all images are asked for")
        pages = Pages(self._entries(name))
        draw, note = pages.draw(labels, size, seed, EXACT_BYTES)
        needed, total = pages.cost(draw.rows), pages.total
        if note is not None and needed > max(EXACT_BYTES, MOST_SHARE * total):
            raise NotCheap(f"the sample would take {needed / 1e6:,.0f} MB of {total / 1e6:,.0f} MB")
        return draw, pages.read, note

    def _entries(self, name: str) -> list[Entry]:
        import pyarrow as pa

        kind = self._shards[0].metadata.schema.to_arrow_schema().field(name).type
        if not (pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise NotCheap(f"column {name!r} ({kind}) does not hold the images themselves")
        leaf = f"{name}.bytes" if pa.types.is_struct(kind) else name
        return [entry for found in in_threads(lambda shard: shard.entries(leaf), self._shards) for entry in found]
