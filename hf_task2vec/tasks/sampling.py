"""Seeded, shuffled, class-balanced sampling.

One rule serves every case: the next row always comes from the class that the sample holds fewest of, ties broken at
random. For single labels that is round robin over the classes in a new random order each round, so classes share the
sample as evenly as their sizes allow (water-filling), **every prefix of the sample is balanced too**, and the sample of
size m is the beginning of any larger one with the same seed. With several labels a row counts for each of its labels,
which makes the rule the greedy "rarest label first".
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np

T = TypeVar("T")
_COPIES_MET = 64  # and as many as rows wanted, after which a copy is not replaced


@dataclass(frozen=True)
class Unusable:
    """A row that cannot be loaded."""

    reason: str
    name: str = ""  # of its file, if it has one


@dataclass(frozen=True)
class Filled(Generic[T]):
    """A sample that was loaded."""

    rows: list[int]
    loaded: list[T]  # what the rows loaded to
    skipped: dict[int, Unusable]  # by row, in the order met
    repeated: dict[int, int]  # for a row left out, the row met before it that has the same content


class Draw:
    """A sample of `size` rows (None for all) without replacement, and replacements where one turns out unusable.

    Row ``rows[p]`` carries class ``classes[p]``; a row occurs once for each of its classes. What is drawn depends on
    `seed` and on the set of pairs, not on the platform.
    """

    def __init__(self, rows: np.ndarray, classes: np.ndarray, size: int | None, seed: int) -> None:
        self._rng = rng = np.random.default_rng(seed)
        self._rows, items = np.unique(np.asarray(rows, dtype=np.int64), return_inverse=True)
        classes = np.asarray(classes, dtype=np.int64)
        n_classes = int(classes.max(initial=-1)) + 1
        priority = rng.permutation(len(self._rows))
        self._queues, self._queue_ends = _grouped(items, classes, priority[items], n_classes)
        self._cursor = np.concatenate([[0], self._queue_ends[:-1]]).astype(np.int64)
        self._classes, self._class_ends = _grouped(classes, items, classes, len(self._rows))
        self._taken = np.zeros(len(self._rows), dtype=bool)
        self._counts = np.zeros(n_classes, dtype=np.int64)
        self._open = self._cursor < self._queue_ends
        self.slots = tuple(islice(iter(self._draw, None), size))
        """Rows wanted, each with the class that it was drawn for."""

    @property
    def rows(self) -> list[int]:
        """Rows wanted, in the sample's order."""
        return [row for row, _ in self.slots]

    def fill(
        self, load: Callable[[Sequence[int]], Iterable[T | Unusable]], content: Callable[[T], Hashable] | None = None
    ) -> Filled[T]:
        """Load the rows; an unusable one is replaced by the next of its class, while there are any.

        `load` returns for each of many rows what it loads to, or why it is unusable. A row whose `content` is that of
        another is replaced too, within limits: a class of copies of one picture is not read to its end.
        """
        rest, pending = copy.deepcopy(self), dict(enumerate(self.slots))
        filled: Filled[T] = Filled([], [], {}, {})
        loaded: dict[int, tuple[int, T]] = {}
        first: dict[Hashable, int] = {}
        while pending:
            results = list(load([row for row, _ in pending.values()]))
            wanted, pending = pending, {}
            for (position, slot), result in zip(wanted.items(), results, strict=True):
                if isinstance(result, Unusable):
                    filled.skipped[slot[0]] = result
                elif content is None or first.setdefault(content(result), slot[0]) == slot[0]:
                    loaded[position] = slot[0], result
                    continue
                else:
                    filled.repeated[slot[0]] = first[content(result)]
                    if len(filled.repeated) > _COPIES_MET + len(self.slots):
                        continue
                if (replacement := rest._redraw(*slot)) is not None:
                    pending[position] = replacement
        for position in sorted(loaded):
            filled.rows.append(loaded[position][0])
            filled.loaded.append(loaded[position][1])
        return filled

    def _draw(self) -> tuple[int, int] | None:
        """Return the next row and the class it was drawn for, None when no row is left."""
        while self._open.any():
            least = self._counts[self._open].min()
            ties = np.flatnonzero(self._open & (self._counts == least))
            label = int(ties[self._rng.integers(len(ties))])
            if (row := self._next_of(label)) is not None:
                return row, label
        return None

    def _redraw(self, row: int, label: int) -> tuple[int, int] | None:
        """Return a row to stand for the unusable `row` drawn for `label`: of the same class while it has any."""
        item = int(np.searchsorted(self._rows, row))
        self._counts[self._classes_of(item)] -= 1
        replacement = self._next_of(label)
        return self._draw() if replacement is None else (replacement, label)

    def _next_of(self, label: int) -> int | None:
        while self._cursor[label] < self._queue_ends[label]:
            item = int(self._queues[self._cursor[label]])
            self._cursor[label] += 1
            if not self._taken[item]:
                self._taken[item] = True
                self._counts[self._classes_of(item)] += 1
                return int(self._rows[item])
        self._open[label] = False
        return None

    def _classes_of(self, item: int) -> np.ndarray:
        return self._classes[self._class_ends[item - 1] if item else 0 : self._class_ends[item]]


Read = Callable[[Sequence[int]], Iterator[Any]]
"""Returns the undecoded cells of the image column at some rows, a few at a time."""
Drawn = tuple[Draw, Read, str | None]
"""A sample, what reads its images, and a note of which rows it was drawn from, where not from all."""


def _grouped(values: np.ndarray, groups: np.ndarray, order: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `values` sorted by group, then by `order`, and where each of the `n` groups ends."""
    by_group = np.lexsort((order, groups))
    return values[by_group], np.cumsum(np.bincount(groups, minlength=n))
