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
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .files import cache_dir, canonical_json, sha256_bytes, write_json
from .hub import HubSession
from .hub_ranges import RemoteFiles, drop_oldest, parts_folder
from .hub_shards import Entry, NotCheap, Shard, in_threads, open_shards
from .labels import Labels
from .sampling import BalancedSampler

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

logger = logging.getLogger(__name__)

EXACT_BYTES = 32 << 20
"""Up to so many bytes the sample is the one that a download would give."""
MOST_SHARE = 0.5
"""Beyond this share of all images (and `EXACT_BYTES`) the split is downloaded instead."""

_SPARE = 1.25  # rows a class has to choose from, for each that the sample takes of it
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


def known_commit(hub_id: str, revision: str | None, token: Any) -> str | None:
    """Return the commit at which the dataset was last listed, None if it never was."""
    try:
        found = json.loads(_pointer(HubSession(hub_id, token=token), revision).read_text())
    except (OSError, ValueError):
        return None
    return str(found["commit"])


def find_listing(
    hub_id: str,
    name: str | None,
    commit: str,
    token: Any,
    *,
    revision: str | None,
    make_builder: Callable[[], datasets.DatasetBuilder],
) -> Listing | None:
    """Return which Parquet files a dataset consists of at a commit, or None (with a line in the log) if of none.

    Parameters
    ----------
    hub_id, name, commit, token, revision
        The dataset, its configuration, the commit that `revision` stands for.
    make_builder
        Makes the builder of `datasets` for it; called if the commit was not listed before.
    """
    session = HubSession(hub_id, revision=commit, token=token)
    folder = parts_folder(session, commit)
    path = folder / f"listing-{sha256_bytes(str(name).encode())[:24]}.json"
    with suppress(OSError):  # another process may drop the same
        drop_oldest(folder)
    try:
        return Listing(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        pass
    try:
        listing = _list(session, commit, make_builder())
    except NotCheap as why:
        logger.info("%s is downloaded, not read in parts: %s", hub_id, why)
        return None
    try:
        write_json(path, asdict(listing))
        write_json(_pointer(session, revision), {"dataset": hub_id, "commit": commit})
    except OSError as error:
        logger.debug("the cache is not usable (%s)", error)
    return listing


def _pointer(session: HubSession, revision: str | None) -> Any:
    key = canonical_json([session.api.endpoint, session.repo_id, revision])
    return cache_dir() / "hub" / "revisions" / f"{sha256_bytes(key)[:32]}.json"


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


@dataclass(frozen=True)
class Cells:
    """Undecoded cells of an image column.

    Attributes
    ----------
    rows
        Rows that a sample may be drawn from; None for all.
    note
        What is special about them; None for all.
    read
        Returns the cells at some rows.
    """

    rows: np.ndarray | None
    note: str | None
    read: Callable[[Sequence[int]], list[Any]]


@dataclass(frozen=True, eq=False)
class RemoteSplit:
    """One split of a Parquet dataset on the Hub.

    Attributes
    ----------
    files, paths, sizes
        Its files in order, and their lengths in bytes.
    declared
        Features as the dataset's card declares them.
    load
        Opens the split with `datasets` instead.
    """

    files: RemoteFiles
    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    declared: dict[str, Any] | None
    load: Callable[[], datasets.Dataset | datasets.IterableDataset] = field(repr=False)

    @classmethod
    def of(cls, listing: Listing, split: str, hub_id: str, token: Any, load: Callable[[], Any]) -> RemoteSplit | None:
        """Return a split of a listed dataset; None for what is no whole split (``train[:100]``)."""
        if split not in listing.splits:
            logger.info("%s is downloaded, not read in parts: %r is no single whole split", hub_id, split)
            return None
        paths = tuple(listing.splits[split])
        files = RemoteFiles(HubSession(hub_id, revision=listing.commit, token=token), listing.commit)
        return cls(files, paths, tuple(listing.sizes[path] for path in paths), listing.features, load)

    @cached_property
    def shards(self) -> list[Shard]:
        """The files, with their footers."""
        return open_shards(self.files, zip(self.paths, self.sizes, strict=True))

    @property
    def num_rows(self) -> int:
        """Rows in the split."""
        return sum(shard.metadata.num_rows for shard in self.shards)

    @cached_property
    def features(self) -> datasets.Features:
        """Columns and their types."""
        import datasets

        if self.declared is not None:
            return datasets.Features.from_dict(self.declared)
        return datasets.Features.from_arrow_schema(self.shards[0].metadata.schema.to_arrow_schema())

    def column(self, name: str) -> pa.ChunkedArray:
        """Read a whole column of labels."""
        import pyarrow as pa

        parts = in_threads(lambda shard: shard.column(name), self.shards)
        kind = self.features.arrow_schema.field(name).type
        chunks = [chunk for part in parts for chunk in part.cast(kind).chunks]
        logger.info("labels of %s read: %.1f MB", self.files.session.repo_id, self.files.bytes_read / 1e6)
        return pa.chunked_array(chunks, kind)

    def first_value(self, name: str) -> Any:
        """Return the first value of a binary column that is not null, among a few; None if there is none."""
        for entry in self._entries(name)[:1]:
            return next((value for value in entry.values(min(_PEEK_ROWS, entry.rows)) if value is not None), None)
        return None

    def cells(self, name: str, labels: Labels, size: int, seed: int) -> Cells:
        """Return access to the images for a sample of `size` rows drawn with `seed`.

        Raises
        ------
        NotCheap
            If it would take more bytes than a download is worth.
        """
        plan = _Plan(self._entries(name), size, seed)
        rows, classes = labels.sampling_pairs()
        drawn = plan.draw(rows, classes)
        needed = plan.cost([row for row, _ in drawn])
        allowed, note = None, None
        if needed > EXACT_BYTES:
            near = plan.near(rows, classes, drawn)
            allowed, exact = np.unique(rows[near]), needed
            drawn = plan.draw(rows[near], classes[near])
            needed = plan.cost([row for row, _ in drawn])
            if needed > max(EXACT_BYTES, MOST_SHARE * plan.total):
                raise NotCheap(f"the sample would take {needed / 1e6:,.0f} MB of {plan.total / 1e6:,.0f} MB")
            note = (
                f"drawn from the {len(allowed):,} of {len(labels.labelled):,} rows that lie near the start of a row "
                f"group or page: about {needed / 1e6:.1f} MB to read instead of {exact / 1e6:.1f} MB"
            )
            logger.info("sample of %s %s", self.files.session.repo_id, note)
        ahead = plan.counts([row for row, _ in drawn])

        def read(wanted: Sequence[int]) -> list[Any]:
            counts = plan.counts(wanted)
            numbers = sorted(counts)
            found = dict(
                zip(
                    numbers,
                    in_threads(lambda i: plan.entries[i].values(counts[i], ahead.get(i, 0)), numbers),
                    strict=True,
                )
            )
            places = zip(plan.entry_of(wanted).tolist(), wanted, strict=True)
            return [found[i][row - plan.entries[i].first] for i, row in places]

        return Cells(allowed, note, read)

    def _entries(self, name: str) -> list[Entry]:
        import pyarrow as pa

        kind = self.shards[0].metadata.schema.to_arrow_schema().field(name).type
        if not (pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise NotCheap(f"column {name!r} ({kind}) does not hold the images themselves")
        leaf = f"{name}.bytes" if pa.types.is_struct(kind) else name
        return [entry for found in in_threads(lambda shard: shard.entries(leaf), self.shards) for entry in found]


class _Plan:
    """Which rows to draw, and what they cost."""

    def __init__(self, entries: Sequence[Entry], size: int, seed: int) -> None:
        self.entries = entries
        self._size, self._seed = size, seed
        self._first = np.array([entry.first for entry in entries], dtype=np.int64)
        self.total = sum(entry.cost(entry.rows) for entry in entries)

    def entry_of(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the entry that each row is in."""
        return np.searchsorted(self._first, np.asarray(rows, dtype=np.int64), side="right") - 1

    def counts(self, rows: Sequence[int]) -> dict[int, int]:
        """Return how many rows of each entry must be read to have some rows."""
        counts: dict[int, int] = {}
        for entry, row in zip(self.entry_of(rows).tolist(), rows, strict=True):
            counts[entry] = max(counts.get(entry, 0), row - self.entries[entry].first + 1)
        return counts

    def cost(self, rows: Sequence[int]) -> int:
        """Return about how many bytes it takes to have some rows."""
        return sum(self.entries[entry].cost(count) for entry, count in self.counts(rows).items())

    def draw(self, rows: np.ndarray, classes: np.ndarray) -> list[tuple[int, int]]:
        """Return the rows that the sample starts from, as `Task` draws them, and the class of each."""
        sampler = BalancedSampler(rows, classes, np.random.default_rng(self._seed))
        draws = (sampler.draw() for _ in range(self._size))
        return [drawn for drawn in draws if drawn is not None]

    def near(self, rows: np.ndarray, classes: np.ndarray, drawn: Sequence[tuple[int, int]]) -> np.ndarray:
        """Return the positions of the rows of each class that are nearest to where an entry starts."""
        depth = rows - self._first[self.entry_of(rows)]
        quota = np.bincount([label for _, label in drawn], minlength=int(classes.max(initial=0)) + 1)
        needed = np.ceil(_SPARE * quota).astype(np.int64) + 1
        order = np.lexsort((depth, classes))
        kept = []
        for positions in np.split(order, np.flatnonzero(np.diff(classes[order])) + 1):
            last = min(needed[classes[positions[0]]], len(positions)) - 1
            kept.append(positions[depth[positions] <= depth[positions[last]]])
        return np.sort(np.concatenate(kept))
