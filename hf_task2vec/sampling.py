"""Seeded, shuffled, class-balanced sampling.

One rule serves every case: the next row always comes from the class that the sample holds fewest of, ties broken at
random. For single labels that is round robin over the classes in a new random order each round, so classes share the
sample as evenly as their sizes allow (water-filling), **every prefix of the sample is balanced too**, and the sample of
size m is the beginning of any larger one with the same seed. With several labels a row counts for each of its labels,
which makes the rule the greedy "rarest label first".
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class BalancedSampler:
    """Draws rows without replacement, always for the class that has been drawn least.

    Parameters
    ----------
    rows, classes
        Shape (P,): row ``rows[p]`` carries class ``classes[p]``. A row occurs once for each of its classes.
    rng
        Source of randomness. The draws depend on it and on the set of pairs, not on the platform.
    """

    def __init__(self, rows: np.ndarray, classes: np.ndarray, rng: np.random.Generator) -> None:
        self._rng = rng
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

    def draw(self) -> tuple[int, int] | None:
        """Return the next row and the class it was drawn for, None when no row is left."""
        while self._open.any():
            least = self._counts[self._open].min()
            ties = np.flatnonzero(self._open & (self._counts == least))
            label = int(ties[self._rng.integers(len(ties))])
            row = self._next_of(label)
            if row is not None:
                return row, label
        return None

    def redraw(self, row: int, label: int) -> tuple[int, int] | None:
        """Return a row to stand for the unusable `row` drawn for `label`: of the same class while it has any."""
        item = int(np.searchsorted(self._rows, row))
        self._counts[self._classes_of(item)] -= 1
        replacement = self._next_of(label)
        return self.draw() if replacement is None else (replacement, label)

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


def draw_sample(
    sampler: BalancedSampler, size: int | None, load: Callable[[Sequence[int]], Sequence[T | str]]
) -> tuple[list[int], list[T], list[tuple[int, str]]]:
    """Draw `size` usable rows (all of them if None); an unusable one is replaced by the next of its class.

    Parameters
    ----------
    sampler
        Where rows come from.
    size
        Rows wanted; fewer are returned only when no more are usable.
    load
        Returns for each row what it loads to, or a text saying why it is unusable. Called for many rows at a time.

    Returns
    -------
    rows, loaded, skipped
        The rows drawn, what they loaded to, and ``(row, reason)`` of each unusable row in the order met.
    """
    slots: list[tuple[int, int] | None] = []
    while size is None or len(slots) < size:
        drawn = sampler.draw()
        if drawn is None:
            break
        slots.append(drawn)
    loaded: dict[int, T] = {}
    skipped: list[tuple[int, str]] = []
    pending = list(range(len(slots)))
    while pending:
        wanted = [(position, slot) for position in pending if (slot := slots[position]) is not None]
        pending = []
        for (position, slot), result in zip(wanted, load([slot[0] for _, slot in wanted]), strict=True):
            if isinstance(result, str):
                skipped.append((slot[0], result))
                slots[position] = sampler.redraw(*slot)
                pending.append(position)
            else:
                loaded[position] = result
    kept = sorted(loaded)
    return [slot[0] for position in kept if (slot := slots[position])], [loaded[position] for position in kept], skipped


class ClassReservoir(Generic[T]):
    """A bounded, class-balanced random sample of a stream, in one pass.

    Every item gets a random priority, and each class keeps its items of lowest priority, which are a uniform sample of
    what was seen of it. When all classes together exceed the capacity, the largest class gives one up; as classes
    appear, the quotas of the others shrink by themselves, ending at water-filling over the whole stream.

    Parameters
    ----------
    capacity
        Items kept over all classes, or None for all.
    rng
        Source of the priorities.
    """

    def __init__(self, capacity: int | None, rng: np.random.Generator) -> None:
        self._capacity = capacity
        self._rng = rng
        self._heaps: dict[Hashable, list[tuple[float, int, T]]] = {}
        self._lowest_dropped: dict[Hashable, float] = {}
        self._size = 0

    def add(self, label: Hashable, position: int, make: Callable[[], T]) -> None:
        """Offer the item at `position` of the stream; `make` is called only if it is kept for now."""
        priority = float(self._rng.random())
        if priority >= self._lowest_dropped.get(label, 1.0):
            return
        heapq.heappush(self._heaps.setdefault(label, []), (-priority, position, make()))
        self._size += 1
        if self._capacity is not None and self._size > self._capacity:
            largest = max(self._heaps, key=lambda key: len(self._heaps[key]))
            self._lowest_dropped[largest] = -heapq.heappop(self._heaps[largest])[0]
            self._size -= 1

    def items(self) -> dict[int, T]:
        """Return what is kept, by position in the stream, in the stream's order."""
        kept = {position: item for heap in self._heaps.values() for _, position, item in heap}
        return dict(sorted(kept.items()))


def _grouped(values: np.ndarray, groups: np.ndarray, order: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `values` sorted by group, then by `order`, and where each of the `n` groups ends."""
    by_group = np.lexsort((order, groups))
    return values[by_group], np.cumsum(np.bincount(groups, minlength=n))
