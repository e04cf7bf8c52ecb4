"""Which rows of Parquet files to draw, so that few bytes are read: a page is decoded from its first value on."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hf_task2vec.tasks.parquet.shards import in_threads
from hf_task2vec.tasks.sampling import Draw

if TYPE_CHECKING:
    from hf_task2vec.tasks.labels import Labels

logger = logging.getLogger(__name__)

_SPARE = 1.25  # rows a class has to choose from, for each that the sample takes of it


class Entry(Protocol):
    """Rows of a column that are read from their first one on."""

    @property
    def first(self) -> int:
        """First row in the split."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    def cost(self, count: int) -> int:
        """Return about how many bytes the first `count` rows take."""

    def at(self, positions: Sequence[int]) -> list[Any]:
        """Return the cells at some positions."""


class Pages:
    """What it takes to read the images at some rows."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._first = np.array([entry.first for entry in entries], dtype=np.int64)

    @property
    def total(self) -> int:
        """About how many bytes all images take."""
        return sum(entry.cost(entry.rows) for entry in self._entries)

    def cost(self, rows: Sequence[int]) -> int:
        """Return about how many bytes it takes to have some rows."""
        return sum(self._entries[entry].cost(count) for entry, count in self._counts(rows).items())

    def draw(self, labels: Labels, size: int | None, seed: int, exact_bytes: float) -> tuple[Draw, str | None]:
        """Draw a sample: from all rows if that takes `exact_bytes` at most, else from those near the start of a page.

        Returned with it is which rows it was drawn from, where not from all.
        """
        rows, classes = labels.sampling_pairs()
        draw = Draw(rows, classes, size, seed)
        exact = self.cost(draw.rows)
        if exact <= exact_bytes or size is None:
            return draw, None
        near = self._near(rows, classes, draw)
        draw = Draw(rows[near], classes[near], size, seed)
        note = (
            f"drawn from the {len(np.unique(rows[near])):,} of {len(labels.labelled):,} rows that lie near the "
            f"start of a row group or page: about {self.cost(draw.rows) / 1e6:.1f} MB to read instead of "
            f"{exact / 1e6:.1f} MB"
        )
        logger.info("sample %s", note)
        return draw, note

    def _near(self, rows: np.ndarray, classes: np.ndarray, draw: Draw) -> np.ndarray:
        """Return the positions of the rows of each class that are nearest to where an entry starts."""
        depth = rows - self._first[self._entry_of(rows)]
        quota = np.bincount([label for _, label in draw.slots], minlength=int(classes.max(initial=0)) + 1)
        needed = np.ceil(_SPARE * quota).astype(np.int64) + 1
        order = np.lexsort((depth, classes))
        kept = []
        for positions in np.split(order, np.flatnonzero(np.diff(classes[order])) + 1):
            last = min(needed[classes[positions[0]]], len(positions)) - 1
            kept.append(positions[depth[positions] <= depth[positions[last]]])
        return np.sort(np.concatenate(kept))

    def read(self, rows: Sequence[int]) -> Iterator[Any]:
        """Yield the images at some rows; each page is entered once."""
        entries = self._entry_of(rows).tolist()
        wanted: dict[int, list[int]] = defaultdict(list)
        for entry, row in zip(entries, rows, strict=True):
            wanted[entry].append(row - self._entries[entry].first)
        values = in_threads(lambda item: iter(self._entries[item[0]].at(item[1])), wanted.items())
        found = dict(zip(wanted, values, strict=True))
        for entry in entries:
            yield next(found[entry])

    def _entry_of(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.searchsorted(self._first, np.asarray(rows, dtype=np.int64), side="right") - 1

    def _counts(self, rows: Sequence[int]) -> dict[int, int]:
        """Return how many rows of each entry must be read to have some rows."""
        counts: dict[int, int] = {}
        for entry, row in zip(self._entry_of(rows).tolist(), rows, strict=True):
            counts[entry] = max(counts.get(entry, 0), row - self._entries[entry].first + 1)
        return counts
